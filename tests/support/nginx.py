"""A real nginx in front of a server, with the settings that it has by itself."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.sockets import accepts, free_port
from tests.support.waiting import until

# By itself nginx speaks HTTP/1.0 to what is behind it, and asks it to close the connection.
_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port};
    {locations}
  }}
}}
"""
LOCATIONS = """
location /taken-off/ {
  proxy_pass UPSTREAM/;
  proxy_set_header X-Forwarded-Prefix /taken-off;
}
location /left/on/ {
  proxy_pass UPSTREAM;
  proxy_set_header X-Forwarded-Prefix /left/on;
}
location /web-sockets/ {
  proxy_pass UPSTREAM/;
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header X-Forwarded-Prefix /web-sockets;
}
location /unbuffered/ {
  proxy_pass UPSTREAM/;
  proxy_http_version 1.1;
  proxy_request_buffering off;
  proxy_set_header Connection "";
  proxy_set_header X-Forwarded-Prefix /unbuffered;
}
"""
PREFIXES = ("/taken-off", "/left/on", "/web-sockets", "/unbuffered")


@contextmanager
def running_nginx(server: Server, folder: Path, locations: str = LOCATIONS) -> Iterator[str]:
    """Its address, below which the server is at each of `PREFIXES`; skips if it is missing.

    Other `locations` call the server UPSTREAM too.
    """
    binary = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if binary is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    config = folder / "nginx.conf"
    locations = locations.replace("UPSTREAM", server.url)
    config.write_text(_CONFIG.format(folder=folder, port=port, locations=locations))
    log = folder / "error.log"
    command = [binary, "-p", str(folder), "-c", str(config), "-e", str(log)]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: process.poll() is not None or accepts(port))
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
