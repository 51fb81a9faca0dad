//! The log is never cut above a checkpoint that is on the device.

use crate::config::NodeId;

pub(crate) fn is_behind(node: NodeId, group: u32, cut: u64, synced: u64) -> Result<(), String> {
    if cut <= synced {
        return Ok(());
    }
    Err(format!(
        "node {node} group {group}: the log is cut at {cut}, and the state store's last sync holds {synced}"
    ))
}
