//! Tests an entity without a cluster: given these events, when this command, then that.
