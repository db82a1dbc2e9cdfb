"""What demonstrations and tests need to be staged: processes, networks, ladders, captures, reports."""
