"""One maker per kind of cell: trained here, imported, a baseline."""
