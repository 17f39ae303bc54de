"""python -m cloud_runtime.serve keystone|cinder|manila|nova

Runs every component of one OpenStack project as threads of this process:
its WSGI API under waitress and its RPC services, joined by oslo.messaging's
in-memory transport.  Writes run/<service>.ready when the API answers.  A kill -9
of this process is a crash of all of that project's services.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback

STOP = threading.Event()


def env_port(name):
    return json.loads(os.environ["CLOUD_PORTS"])[name]


def conf_path(name):
    return os.path.join(os.environ["CLOUD_STATE"], "etc", name)


def keystone():
    from cloud_runtime import httpd, shims
    shims.install()
    from keystone.server.flask import core
    app = core.initialize_application(
        name="public", config_files=[conf_path("keystone.conf")])
    httpd.serve(app, env_port("keystone"), threads=8)
    return lambda: None


def _no_privsep_daemon(*contexts):
    """We are root already: run privileged functions in this process."""
    for c in contexts:
        c.set_client_mode(False)


def cinder():
    from cloud_runtime import httpd, shims
    # every cinder.cmd module patches again at import: say it once for all
    os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "1"
    from cinder import monkey_patch
    monkey_patch.patch()
    shims.install()
    sys.argv = ["cinder", "--config-file", conf_path("cinder.conf")]
    # imported before the configuration is parsed: they register CLI options
    from cinder.cmd import backup as _cmd_backup    # noqa: F401
    from cinder.cmd import volume as cmd_volume
    from cinder.wsgi import wsgi
    app = wsgi.initialize_application()         # parses the configuration

    import os_brick
    from os_brick import privileged as brick_priv
    from oslo_config import cfg
    from cinder import privsep as cinder_priv
    from cinder import service, utils
    CONF = cfg.CONF
    os_brick.setup(CONF)
    _no_privsep_daemon(cinder_priv.sys_admin_pctxt, brick_priv.default,
                       brick_priv.brick_privsep_hide_output)

    # cinder.service.Service keeps the id of "the" service of this process in
    # a class attribute; here several services share the process.
    lock = threading.Lock()
    orig_report = service.Service.report_state

    def report_state(self):
        with lock:
            service.Service.service_id = self.origin_service_id
            orig_report(self)

    service.Service.report_state = report_state

    # the scheduler last: at start it asks the volume services for their
    # capabilities and waits for the first answer
    servers = []
    for backend in CONF.enabled_backends:
        CONF.register_opt(cmd_volume.host_opt, group=backend)
        servers.append(service.Service.create(
            host="%s@%s" % (CONF.host, backend), service_name=backend,
            binary="cinder-volume", coordination=True))
    servers.append(service.Service.create(
        binary="cinder-backup", coordination=True, service_name="backup",
        process_number=1,
        semaphore=utils.semaphore_factory(CONF.backup_max_operations, 1)))
    servers.append(service.Service.create(binary="cinder-scheduler"))
    for s in servers:
        s.start()
    httpd.serve(app, env_port("cinder"), threads=16)

    def stop():
        for s in reversed(servers):
            s.stop()
    return stop


def manila():
    from cloud_runtime import httpd, shims
    from manila import monkey_patch
    monkey_patch.patch()                        # native threads
    shims.install()
    sys.argv = ["manila", "--config-file", conf_path("manila.conf")]
    from manila.wsgi import wsgi
    app = wsgi.initialize_application()
    from oslo_config import cfg
    from manila import service
    CONF = cfg.CONF

    # manila.share.manager registers [keystone_authtoken] auth_url in its own
    # words; the API's middleware has registered keystoneauth's option already
    def register(opts, group=None, **kw):
        for opt in opts:
            try:
                cfg.ConfigOpts.register_opts(CONF, [opt], group, **kw)
            except cfg.DuplicateOptError:
                if str(group) != "keystone_authtoken":
                    raise

    CONF.register_opts = register
    import manila.share.manager     # noqa: F401
    del CONF.register_opts

    servers = [service.Service.create(
        host="%s@%s" % (CONF.host, b), service_name=b, binary="manila-share",
        coordination=True) for b in CONF.enabled_share_backends]
    servers.append(service.Service.create(binary="manila-data"))
    servers.append(service.Service.create(binary="manila-scheduler"))
    for s in servers:
        s.start()
    httpd.serve(app, env_port("manila"), threads=16)

    def stop():
        for s in reversed(servers):
            s.stop()
    return stop


def nova():
    """nova's API, conductor, scheduler and computes; placement; stubs."""
    from cloud_runtime import httpd, shims, stubs
    os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "1"
    from nova import monkey_patch
    monkey_patch.patch()
    shims.install()

    os.environ["OS_PLACEMENT_CONFIG_DIR"] = os.path.dirname(conf_path("x"))
    from placement import wsgi as placement_wsgi
    httpd.serve(placement_wsgi.init_application(), env_port("placement"), 8)
    httpd.serve(stubs.neutron, env_port("neutron"), 2)
    httpd.serve(stubs.glance, env_port("glance"), 2)

    # wsgi_app wants api-paste.ini first; both names may be absolute
    paste = os.path.join(os.path.dirname(os.path.dirname(sys.executable)),
                         "etc/nova/api-paste.ini")
    os.environ["OS_NOVA_CONFIG_FILES"] = paste + ";" + conf_path("nova.conf")
    sys.argv = ["nova"]
    from nova.api.openstack import wsgi_app
    app = wsgi_app.init_application("osapi_compute", "nova-api-os-compute")
    meta = wsgi_app.init_application("metadata", "nova-api-metadata")

    import os_vif
    from nova import objects, service
    from nova.compute import rpcapi as compute_rpcapi
    from nova.conductor import rpcapi as conductor_rpcapi
    from nova.scheduler import rpcapi as scheduler_rpcapi
    from nova.virt import node as virt_node
    from cloud_runtime import nova_loopvirt
    sys.modules["nova.virt.loopvirt"] = nova_loopvirt
    os_vif.initialize()
    objects.Service.enable_min_version_cache()
    virt_node.get_local_node_uuid()     # writes the file computes look for

    servers = [
        service.Service.create(binary="nova-conductor", host="cloud",
                               topic=conductor_rpcapi.RPC_TOPIC),
        service.Service.create(binary="nova-scheduler", host="cloud",
                               topic=scheduler_rpcapi.RPC_TOPIC)]
    servers += [
        service.Service.create(binary="nova-compute", host=h,
                               topic=compute_rpcapi.RPC_TOPIC,
                               topic_alt=compute_rpcapi.RPC_TOPIC_ALT)
        for h in ("compute-1", "compute-2")]     # zones nova and az2
    for s in servers:
        s.start()
        # the first heartbeat comes after 5 s otherwise, and a state copied from
        # the seed has old ones: until then there would be no host for a server
        s.servicegroup_api._driver._report_state(s)
    # nova-manage cell_v2 discover_hosts, without the 3 s of a process
    from nova import context
    from nova.objects import host_mapping
    host_mapping.discover_hosts(context.get_admin_context())
    from cloud_runtime import metadata
    httpd.serve(metadata.front(meta), env_port("metadata"), threads=2)
    httpd.serve(app, env_port("nova"), threads=16)
    return lambda: None


SERVICES = {"keystone": keystone, "cinder": cinder, "manila": manila,
            "nova": nova}


def main():
    name = sys.argv[1]
    sys.argv = [name]
    signal.signal(signal.SIGTERM, lambda *_: STOP.set())
    signal.signal(signal.SIGINT, lambda *_: STOP.set())
    t0 = time.monotonic()
    try:
        stop = SERVICES[name]()
    except BaseException:
        # threads that are up already would keep a half-started process alive
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    from cloud_runtime import shims
    shims.quiet()
    ready = os.path.join(os.environ["CLOUD_STATE"], "run", name + ".ready")
    with open(ready, "w") as f:
        f.write("%.2f\n" % (time.monotonic() - t0))
    STOP.wait()
    # a tidy stop where it is quick; a long one only costs the caller time
    t = threading.Thread(target=stop, daemon=True)
    t.start()
    t.join(3)
    os._exit(0)


if __name__ == "__main__":
    main()
