"""What users see when something is wrong: the events name the cause and the way out."""

from harness import deployment, objects
from harness.cluster import until
from harness.scenario import scenario


def told(case, name, *words, seconds=60):
    """Wait for a warning of that object that says all these words."""
    def look():
        return next((e for e in case.events(name) if all(w.lower() in e.lower() for w in words)), None)
    try:
        return until("an event of %s says %s" % (name, ", ".join(words)), look, seconds)
    except TimeoutError as error:
        raise TimeoutError("%s; it says:\n%s" % (error, "\n".join(case.events(name)))) from None


def ask(case, claim="data", **options):
    """A claim with a pod that wants it."""
    case.claim(claim, **options)
    case.pod("user", claim, wait=False, block=options.get("mode") == "Block")


@scenario("a class with a wrong parameter: the event names it and the right one")
def wrong_parameter(case):
    case.apply(objects.storage_class("slip", tpye="loop"))
    ask(case, storage_class="slip")
    told(case, "data", "tpye", "type")


@scenario("a class with a volume type that is not there: the event names it")
def wrong_type(case):
    case.apply(objects.storage_class("typo", type="no-such-type"))
    ask(case, storage_class="typo")
    told(case, "data", "no-such-type")


@scenario("a zone that does not exist: the event names it")
def wrong_zone(case):
    case.apply(objects.storage_class("nowhere", availability="no-such-zone"))
    ask(case, storage_class="nowhere")
    told(case, "data", "no-such-zone")


@scenario("a file system shared by writers on several nodes: refused with what to use instead")
def shared_file_system(case):
    ask(case, access="ReadWriteMany")
    told(case, "data", "raw block", "multiattach")


@scenario("a file system that the driver does not know: the event names those that it knows")
def wrong_file_system(case):
    case.apply(objects.storage_class("odd", **{"csi.storage.k8s.io/fstype": "fat12"}))
    ask(case, storage_class="odd")
    until("an event names them", lambda: any("fat12" in e and "ext4" in e for e in case.events()), 60)


@scenario("a class whose secret is missing: the event names it; it comes, and the volume is made")
def missing_secret(case):
    case.cluster.kubectl("apply", "-f", "-", data=case.cluster.kubectl(
        "kustomize", deployment.DEPLOY + "/components/class-secrets"))
    try:
        case.apply(objects.storage_class("secretive", **{
            "csi.storage.k8s.io/provisioner-secret-name": "cloud-of-data",
            "csi.storage.k8s.io/provisioner-secret-namespace": case.name}))
        ask(case, storage_class="secretive")
        told(case, "data", "cloud-of-data", "not found")
        case.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": objects.meta("cloud-of-data", case.name),
                            "stringData": {"cloud": ""}})
        case.running("user")
        # the deletion needs the secret too, so the namespace must not take it along first
        case.delete("Pod", "user")
        case.delete("PersistentVolumeClaim", "data")
        until("the volume is gone", lambda: not case.cloud.list("volumes"))
    finally:
        case.cluster.kubectl("delete", "-k", deployment.DEPLOY + "/components/class-secrets")


@scenario("a full quota: the event says so; there is room again, and the volume is made")
def full_quota(case):
    path = "/os-quota-sets/" + case.cloud.info["demo_project_id"]

    def limit(volumes):
        case.cloud.admin("PUT", "volume", path, {"quota_set": {"volumes": volumes}})
    limit(0)
    try:
        ask(case)
        told(case, "data", "quota")
    finally:
        limit(-1)
    case.running("user")


@scenario("a credential is exchanged and the old one revoked: nobody notices, no pod is restarted")
def rotation(case):
    def names():
        return sorted((p["metadata"]["name"], c["restartCount"]) for p in deployment.pods(case.cluster, deployment.CONTROLLER)
                      for c in p["status"]["containerStatuses"])
    before, old = names(), deployment.credential_in_use(case.cluster)
    deployment.give_credential(case.cluster, case.cloud)
    new = deployment.credential_in_use(case.cluster)
    until("the kubelets have brought it to the pods",
          lambda: all(new in text for text in deployment.secrets_in_pods(case.cluster)), 180)
    case.cloud.revoke(old)
    # the services remember tokens for minutes: not after this
    case.cloud.restart("cinder", "nova")
    case.claim("data")
    case.pod("user", "data")
    assert names() == before, (before, names())
    assert any(deployment.reloads(case.cluster))


@scenario("a credential that is wrong from the start: the pod says why it ended")
def wrong_from_the_start(case):
    deployment.give_credential(case.cluster, case.cloud, wrong=True)
    try:
        deployment.restart(case.cluster, deployment.CONTROLLER)

        def reasons():
            return [(c.get("lastState", {}).get("terminated") or c["state"].get("terminated") or {}).get("message", "")
                    for p in deployment.pods(case.cluster, deployment.CONTROLLER)
                    for c in p["status"].get("containerStatuses", ()) if c["name"] == "fuxi-csi"]
        until("the pods say that the cloud refuses the credential",
              lambda: len(reasons()) == 2 and all("credential" in text for text in reasons()), 60)
    finally:
        deployment.give_credential(case.cluster, case.cloud)
        deployment.restart(case.cluster, deployment.CONTROLLER)
        deployment.wait_ready(case.cluster)
    case.claim("data")
    case.pod("user", "data")


@scenario("without its Secret the controller's pod names what it waits for, and starts when it comes")
def no_secret(case):
    case.cluster.delete("Secret", "cloud-config", deployment.NAMESPACE)
    try:
        deployment.restart(case.cluster, deployment.CONTROLLER)
        until("an event names the Secret", lambda: any(
            'secret "cloud-config" not found' in e["message"] for e in case.cluster.list("Event", deployment.NAMESPACE)), 60)
    finally:
        deployment.give_credential(case.cluster, case.cloud)
    # the kubelet looks again after up to two minutes
    deployment.wait_ready(case.cluster, 240)
