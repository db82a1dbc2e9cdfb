"""PASSporT and Identity: RFC 8224, 8225, 8226, 8588."""
