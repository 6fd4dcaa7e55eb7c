"""What Merit's shells need of the world, as protocols; the adapters stand in `storage`, `bus` and `pools`."""
