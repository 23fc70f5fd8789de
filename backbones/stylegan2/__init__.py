"""The networks of StyleGAN2 that several families are built from: layers, filters, mapping."""
