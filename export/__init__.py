"""Pictures, reports, meshes."""
