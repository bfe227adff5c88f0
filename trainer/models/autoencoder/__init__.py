"""Deep autoencoder of Hinton and Salakhutdinov (2006)."""
