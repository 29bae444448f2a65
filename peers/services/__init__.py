"""What a peers file says of virtual services: how it is read, what contradicts itself, and what may be a mistake."""
