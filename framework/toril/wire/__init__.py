"""What both sides of the BullMQ protocol must agree on: keys, encodings, scripts, connections."""
