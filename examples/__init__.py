"""Programs that show Merit at work; each package here is one of them."""
