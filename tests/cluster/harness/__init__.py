"""What the scenarios stand on, from the outside in:

scenario    what a scenario is, and the program that runs them
case        one scenario's namespace, with words for what users do in it
objects     Kubernetes objects as short functions
deployment  the driver in the cluster, from the manifests of deploy/csi
truth       what is there in the end: in OpenStack, in Kubernetes, on the nodes
rival       cinder-csi; floor: a driver that does nothing
phases      where a pod's time goes; work: whose work it is
cluster     the running cluster: its API, its nodes
"""
