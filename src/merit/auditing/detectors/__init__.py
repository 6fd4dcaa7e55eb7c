"""The detectors that come with Merit, each in a file of its own (see ``merit.auditing.detecting``)."""
