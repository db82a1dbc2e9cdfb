"""What a node answers over HTTP: inquiries, submissions, blocks and changes, and the same from an edge."""
