"""What tests build on the cloud, from the outside in:

cloud       a running cloud of ../cloud, for us alone; its stock of volumes and the like
namespaces  a process that keeps Linux namespaces open
node        a Nova server, and namespaces in which this machine is that server
relay       the ways out of a node's network namespace
driver      a driver's process: start, wait for its socket, stop
provider    what Cinder and Manila, as providers, need of the cloud
cluster     a controller and some nodes, each a process, as an orchestrator runs them
leftovers   what is still there afterwards, in the cloud and on this machine
machine     what this machine has and can
terminal    lines for the reader, and an orderly end on Ctrl-C

All are context managers: what they start they stop, whatever happens.
"""
