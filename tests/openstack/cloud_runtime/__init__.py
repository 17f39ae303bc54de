"""What runs inside the cloud: one process per OpenStack project, without a
message broker and without a database server."""
