"""Neural networks: 3D encoders, SpecFormer, heads and the assembled model (torch is imported on use)."""
