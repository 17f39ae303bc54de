# `make demo`   a volume's whole life on a real OpenStack, started on the spot
# `make test`   everything that this machine can run; what it cannot is named
#
# The rest: build, lint, sanity, cluster, cluster-all, bench, cloud, cloud-stop, clean.

.DEFAULT_GOAL := build
.PHONY: build release demo test lint sanity try cluster cluster-all bench cloud cloud-stop clean

build:
	cargo build --locked

release:
	cargo build --locked --release

demo: release
	tests/demo

test:
	tests/run

lint:
	tests/run format clippy doc licences

sanity: release
	tests/sanity/run

try: release
	tests/try

# The driver in a real Kubernetes, from the manifests of deploy/csi. The first time builds Kubernetes: ten minutes.
cluster: release
	tests/cluster/run

# The same, with Kubernetes' own tests of CSI drivers and figures beside cinder-csi's. An hour.
cluster-all: release
	tests/cluster/run --e2e --rival

# Side by side with cinder-csi: figures, not tests. Half an hour.
bench: release
	tests/bench/bench all

# The OpenStack of the tests, for work by hand: see tests/openstack/README.md.
cloud:
	tests/openstack/cloud start keystone cinder nova

cloud-stop:
	tests/openstack/cloud stop

clean:
	cargo clean
