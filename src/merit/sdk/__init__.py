"""What a user's program needs to be a worker of Merit, or its client."""
