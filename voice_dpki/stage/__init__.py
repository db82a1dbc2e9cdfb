"""The stage of demonstrations and tests: processes, networks, ladders, captures, reports."""
