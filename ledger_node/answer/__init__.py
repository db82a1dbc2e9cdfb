"""A node's HTTP interface: inquiries, submissions, blocks and changes, and the edge that serves the same."""
