"""How the page's files are sent: policy, size, compression, caching, below a path, where it is on."""

import gzip
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from tests.e2e.running import ROOT, free_ports, start_server, wait_until
from tests.page.support import THREE_PARTS, get

SOURCES = {path.name for path in (ROOT / "src/http/page").iterdir()} - {"index.html"}
NAMES = ["", *sorted(f"page/{name}" for name in SOURCES | {"katex.js", "prism.js"})]


def test_policy(server):
    status, headers, _ = get(f"{server.url}/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_compressed_where_the_client_takes_it(server):
    size = 0
    for name in NAMES:
        _, plain_headers, plain = get(f"{server.url}/{name}")
        _, headers, packed = get(f"{server.url}/{name}", {"Accept-Encoding": "br, gzip;q=0.8"})
        assert "Content-Encoding" not in plain_headers and headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed) == plain
        assert headers["Vary"] == plain_headers["Vary"] == "Accept-Encoding"
        assert headers["ETag"] != plain_headers["ETag"]
        size += len(packed)
    print(f"the page has {size / 1024:.0f} KiB gzip")
    assert size < 300 * 1024


@pytest.mark.parametrize("field, packed", [
    ("gzip", True), ("deflate, gzip", True), ("*", True), ("*;q=0, gzip", True), ("x-gzip ; q=0.5", True),
    ("identity", False), ("gzip;q=0", False), ("gzip; q=0.000, *", False), ("*;q=0", False), ("", False), (",;=", False),
])
def test_what_accept_encoding_takes(server, field, packed):
    assert (get(f"{server.url}/", {"Accept-Encoding": field})[1].get("Content-Encoding") == "gzip") == packed


def test_not_sent_again_where_the_browser_has_it(server):
    def status(tags, encoding="gzip"):
        try:
            return get(f"{server.url}/page/app.js", {"If-None-Match": tags, "Accept-Encoding": encoding})[0]
        except urllib.error.HTTPError as error:
            assert error.headers["ETag"] and not error.read()
            return error.code

    tag = get(f"{server.url}/page/app.js", {"Accept-Encoding": "gzip"})[1]["ETag"]
    plain = get(f"{server.url}/page/app.js")[1]["ETag"]
    assert status(tag) == status(f"W/{tag}") == status(f'"other", {tag}') == status("*") == 304
    assert status(plain) == status('"other"') == status(tag, "identity") == 200
    assert status(plain, "identity") == 304


def test_every_module_is_loaded_at_once(server):
    page = get(f"{server.url}/")[2].decode()
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', page))
    later = {"colour_worker.js", "examples.jsonl"}  # when they are needed
    assert named == SOURCES - later


NGINX = """
daemon off; error_log {folder}/error.log; pid {folder}/pid; events {{ }}
http {{
  access_log off; gzip on; gzip_types text/css text/javascript;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location /lab/models/ {{ proxy_pass {url}/; proxy_http_version 1.1; }} }}
}}
"""


def test_behind_nginx_below_a_path(server, open_window, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx:
        pytest.skip("nginx is not installed (Debian package nginx-light)")
    (port,) = free_ports(1)
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, url=server.url))
    process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")])
    url = f"http://127.0.0.1:{port}/lab/models/"

    def there():
        try:
            return get(url)[0] == 200
        except urllib.error.URLError:
            return False

    try:
        assert wait_until(there, 10), (tmp_path / "error.log").read_text()
        window = open_window(url)
        page = window.page
        expect(page.locator("#model")).to_have_text(server.name)
        window.ask(THREE_PARTS)
        expect(page.locator(".answer")).to_contain_text("Answer: 13, 1932, 6")
        page.reload()
        expect(page.locator(".answer")).to_contain_text("Answer: 13, 1932, 6")
    finally:
        process.terminate()
        process.wait(10)


def test_off_where_others_can_reach_it(tmp_path):
    def page_of(*options):
        server = start_server(tmp_path / "log", *options)
        try:
            return get(f"http://127.0.0.1:{server.port}/")[0]
        except urllib.error.HTTPError as error:
            return error.code
        finally:
            server.stop()

    assert page_of("--host", "0.0.0.0") == 404
    assert page_of("--host", "0.0.0.0", "--ui") == 200
    assert page_of("--no-ui") == 404
