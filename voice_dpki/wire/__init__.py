"""The shells of the cores, which do their I/O: SIP sockets, media sessions, clients of HTTP and of the ledger."""
