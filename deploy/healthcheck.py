"""What the image asks of its own process: a drain or worker by its metrics' port, a web by its."""

import os
import ssl
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

# Our own process: its certificate is made out to the name that others call it by.
unverified = ssl.create_default_context()
unverified.check_hostname = False
unverified.verify_mode = ssl.CERT_NONE

web = "https" if os.environ.get("LOGFLUME_WEB__TLS_CERT_FILE") else "http"
places = [f"{web}://127.0.0.1:{os.environ.get('LOGFLUME_WEB__PORT', '8080')}"]
if port := os.environ.get("LOGFLUME_TELEMETRY__PORT"):
    places.insert(0, f"http://127.0.0.1:{port}")

for place in places:
    try:
        url = f"{place}/health/ready"
        with urlopen(url, timeout=8, context=unverified):  # noqa: S310 - http or https of our own
            sys.exit()
    except HTTPError as error:
        sys.exit(error.read().decode(errors="replace"))
    except (URLError, TimeoutError) as error:
        print(f"{place}: {error}", file=sys.stderr)
sys.exit("nobody is ready")
