"""nova's metadata API for a server named in the URL.

A guest asks http://169.254.169.254/openstack/latest/meta_data.json and
neutron's proxy adds who is asking.  Here the client says it itself:

    http://127.0.0.1:8775/<server id>/openstack/latest/meta_data.json
"""

import hashlib
import hmac
import os


def front(app):
    from nova import context, exception, objects

    def middleware(environ, start_response):
        parts = environ["PATH_INFO"].split("/", 2)
        sid = parts[1] if len(parts) > 2 else ""
        try:
            m = objects.InstanceMapping.get_by_instance_uuid(
                context.get_admin_context(), sid)
        except (exception.InstanceMappingNotFound, ValueError):
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        environ["PATH_INFO"] = "/" + parts[2]
        environ["HTTP_X_INSTANCE_ID"] = sid
        environ["HTTP_X_TENANT_ID"] = m.project_id
        environ["HTTP_X_FORWARDED_FOR"] = "127.0.0.1"
        environ["HTTP_X_INSTANCE_ID_SIGNATURE"] = hmac.new(
            os.environ["METADATA_SECRET"].encode(), sid.encode(), hashlib.sha256).hexdigest()
        return app(environ, start_response)
    return middleware
