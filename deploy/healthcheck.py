"""What the image asks of its process: a drain or worker by its metrics' port, a web by its own."""

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

PORTS = os.environ.get("LOGFLUME_TELEMETRY__PORT"), os.environ.get("LOGFLUME_WEB__PORT", "8080")

for port in filter(None, PORTS):
    try:
        with urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=8):
            sys.exit()
    except HTTPError as error:
        sys.exit(error.read().decode(errors="replace"))
    except (URLError, TimeoutError) as error:
        print(f"port {port}: {error}", file=sys.stderr)
sys.exit("nobody is ready")
