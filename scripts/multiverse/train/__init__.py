"""Fine-tuning with Multiverse attention: samples, packing, masks, the training loop, export."""
