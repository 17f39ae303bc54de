"""A small OpenStack client: what the seed and the tests need, stdlib only."""

import json
import time
import urllib.error
import urllib.request

# names of a service in the catalogue; the header that asks for a microversion
SERVICES = {
    "identity": ((), None, None),
    "volume": (("block-storage", "volumev3"), "OpenStack-API-Version", "volume 3.71"),
    "compute": (("compute",), "OpenStack-API-Version", "compute 2.90"),
    "share": (("shared-file-system", "sharev2"), "X-OpenStack-Manila-API-Version", "2.80"),
}
# the image that every server can be made from
IMAGE = "00000000-0000-0000-0000-000000000001"


class ApiError(Exception):
    """An answer that says no."""

    def __init__(self, what, code, body):
        super().__init__("%s: %d %s" % (what, code, body))
        self.code = code


class Api:
    """A session of one user, or of an application credential, in one project."""

    def __init__(self, auth_url, user=None, app_id=None, app_secret=None):
        self.auth_url = auth_url
        auth = {"identity": {"methods": ["application_credential"],
                             "application_credential": {"id": app_id, "secret": app_secret}}}
        if user:        # password and project are named like the user here
            domain = {"id": "default"}
            auth = {"identity": {"methods": ["password"], "password": {"user": {
                        "name": user, "password": user, "domain": domain}}},
                    "scope": {"project": {"name": user, "domain": domain}}}
        headers, body = self._request("POST", auth_url + "/auth/tokens", {"auth": auth}, {})
        self.token, self.info = headers["X-Subject-Token"], body["token"]
        self.urls = {s["type"]: e["url"].rstrip("/") for s in self.info["catalog"]
                     for e in s["endpoints"] if e["interface"] == "public"}

    @staticmethod
    def _request(method, url, body, headers):
        req = urllib.request.Request(
            url, method=method, headers={"Content-Type": "application/json", **headers},
            data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(req, timeout=120) as r:
                data = r.read()
                return r.headers, json.loads(data) if data else None
        except urllib.error.HTTPError as e:
            raise ApiError("%s %s" % (method, url), e.code,
                           e.read().decode(errors="replace")) from None

    def __call__(self, method, service, path, body=None):
        types, header, version = SERVICES[service]
        url = next((self.urls[t] for t in types if t in self.urls), self.auth_url)
        headers = {"X-Auth-Token": self.token}
        if header:
            headers[header] = version
        return self._request(method, url + path, body, headers)[1]

    def wait(self, service, path, want, field="status", seconds=60):
        """Poll an object until its status is want, or (None) until it is gone."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                obj, = self("GET", service, path).values()
                state = obj[field]
            except ApiError as e:
                if e.code != 404 or want is not None:
                    raise
                return None
            if state == want:
                return obj
            if "error" in state.lower() or time.monotonic() > deadline:
                raise RuntimeError("%s is %r, wanted %r: %s" % (
                    path, state, want or "gone", obj.get("fault", "")))
            time.sleep(0.05)

    def create_server(self, name, zone="nova"):
        """A server without network; its disks appear in <nodes>/<id>."""
        path = "/servers/" + self("POST", "compute", "/servers", {"server": {
            "name": name, "imageRef": IMAGE, "flavorRef": "1", "networks": "none",
            "availability_zone": zone}})["server"]["id"]
        return self.wait("compute", path, "ACTIVE")["id"]
