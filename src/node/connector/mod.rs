//! How a volume gets to this machine: one connector per kind of connection.
