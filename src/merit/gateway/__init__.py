"""The way in: check, then route. What comes from outside is checked here, field by field, before the cell sees it."""
