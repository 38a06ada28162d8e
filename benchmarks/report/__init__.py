"""Tables and charts for the pages, from saved figures."""
