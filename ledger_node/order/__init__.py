"""Getting transactions into blocks: the embedded engine, submission, members' shares, verification, following."""
