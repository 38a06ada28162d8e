"""What is measured, and where: clocks, memory, delays, the machine."""
