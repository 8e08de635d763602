"""What the machine has: devices, cores and memory."""
