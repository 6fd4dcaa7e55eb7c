"""The smallest fleet: one worker, one client."""
