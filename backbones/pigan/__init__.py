"""pi-GAN: a FiLM-SIREN field, hierarchical volume rendering, progressive discriminators and camera laws."""
