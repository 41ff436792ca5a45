"""The image's health check: asks a drain or worker on its metrics port, a web on its own port."""

import os
import ssl
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

# It connects to 127.0.0.1, but the certificate is for the web's public name.
unverified = ssl.create_default_context()
unverified.check_hostname = False
unverified.verify_mode = ssl.CERT_NONE

web = "https" if os.environ.get("LOGFLUME_WEB__TLS_CERT_FILE") else "http"
origins = [f"{web}://127.0.0.1:{os.environ.get('LOGFLUME_WEB__PORT', '8080')}"]
if port := os.environ.get("LOGFLUME_TELEMETRY__PORT"):
    origins.insert(0, f"http://127.0.0.1:{port}")

for origin in origins:
    try:
        with urlopen(f"{origin}/health/ready", timeout=8, context=unverified):  # noqa: S310
            sys.exit()
    except HTTPError as error:
        sys.exit(error.read().decode(errors="replace"))
    except (URLError, TimeoutError) as error:
        print(f"{origin}: {error}", file=sys.stderr)
sys.exit("no process responds on the ports of LOGFLUME_TELEMETRY__PORT and LOGFLUME_WEB__PORT")
