//! Versions, upcasts and the committed schema, with small entities.
