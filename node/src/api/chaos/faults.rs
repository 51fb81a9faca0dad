//! Faults of a node itself, between the wire and the engine.

use std::time::Duration;

use cluster::{
    config::NodeId,
    faults::{Direction, FAULTS_MAX, Fault, Faults},
};
use proto::chaos::v1 as pb;

use super::super::status;

/// Sets all of the faults that are asked for, or none.
pub(super) fn set(faults: &Faults, request: &pb::SetFaultsRequest) -> Result<pb::SetFaultsResponse, status::Fault> {
    if request.faults.is_empty() || request.faults.len() > FAULTS_MAX {
        let reason = format!("has {} faults; it takes from 1 to {FAULTS_MAX}", request.faults.len());
        return Err(status::Fault::invalid("faults", reason));
    }
    let lasts = Duration::from_millis(request.lasts_ms);
    // On a trial list first, so that it is all of them or none.
    let wanted = request.faults.iter().enumerate();
    let wanted: Vec<Fault> = wanted.map(|(at, fault)| read(at, fault)).collect::<Result<_, _>>()?;
    let trial = Faults::default();
    for to in [&trial, faults] {
        for fault in &wanted {
            to.set(fault.clone(), lasts)
                .map_err(|(field, reason)| status::Fault::invalid(field, reason))?;
        }
    }
    Ok(pb::SetFaultsResponse {})
}

/// A fault of the wire as the engine knows it.
fn read(at: usize, fault: &pb::Fault) -> Result<Fault, status::Fault> {
    use pb::fault::Kind;

    let invalid = |field: &str, reason: &str| status::Fault::invalid(format!("faults[{at}].{field}"), reason);
    let peer = |peer: u32| {
        let number = NodeId::try_from(peer).ok().filter(|number| *number != 0);
        number.ok_or_else(|| invalid("peer", "is no node's number; they go from 1 to 65535"))
    };
    let kind = fault.kind.as_ref().ok_or_else(|| invalid("kind", "is missing"))?;
    Ok(match kind {
        Kind::Cut(cut) => Fault::Cut {
            peer: peer(cut.peer)?,
            direction: match cut.direction() {
                pb::Direction::Out => Direction::Out,
                pb::Direction::In => Direction::In,
                pb::Direction::Both => Direction::Both,
                pb::Direction::Unspecified => return Err(invalid("cut.direction", "is missing")),
            },
        },
        Kind::SlowLink(slow) => Fault::SlowLink {
            peer: peer(slow.peer)?,
            delay: Duration::from_millis(slow.delay_ms),
            loss_percent: slow.loss_percent,
        },
        Kind::SlowSync(slow) => Fault::SlowSync {
            delay: Duration::from_millis(slow.delay_ms),
        },
        Kind::FullDisk(_) => Fault::FullDisk,
        Kind::FailedSync(_) => Fault::FailedSync,
        Kind::Clock(clock) => Fault::Clock {
            offset_ms: clock.offset_ms,
        },
    })
}

pub(super) fn shown(fault: &Fault) -> pb::Fault {
    use pb::fault::Kind;

    let kind = match fault {
        Fault::Cut { peer, direction } => Kind::Cut(pb::Cut {
            peer: u32::from(*peer),
            direction: match direction {
                Direction::Out => pb::Direction::Out,
                Direction::In => pb::Direction::In,
                Direction::Both => pb::Direction::Both,
            } as i32,
        }),
        Fault::SlowLink {
            peer,
            delay,
            loss_percent,
        } => Kind::SlowLink(pb::SlowLink {
            peer: u32::from(*peer),
            delay_ms: millis(*delay),
            loss_percent: *loss_percent,
        }),
        Fault::SlowSync { delay } => Kind::SlowSync(pb::SlowSync {
            delay_ms: millis(*delay),
        }),
        Fault::FullDisk => Kind::FullDisk(pb::FullDisk {}),
        Fault::FailedSync => Kind::FailedSync(pb::FailedSync {}),
        Fault::Clock { offset_ms } => Kind::Clock(pb::Clock { offset_ms: *offset_ms }),
    };
    pb::Fault { kind: Some(kind) }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_shown_as_it_was_read() {
        let all = [
            Fault::Cut {
                peer: 3,
                direction: Direction::In,
            },
            Fault::SlowLink {
                peer: 2,
                delay: Duration::from_millis(70),
                loss_percent: 5,
            },
            Fault::SlowSync {
                delay: Duration::from_millis(300),
            },
            Fault::FullDisk,
            Fault::FailedSync,
            Fault::Clock { offset_ms: -90_000 },
        ];
        for fault in all {
            assert_eq!(read(0, &shown(&fault)).expect("readable"), fault);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let field = |kind| match read(4, &pb::Fault { kind }) {
            Err(status::Fault::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(None), "faults[4].kind");
        let cut = |peer, direction| Some(pb::fault::Kind::Cut(pb::Cut { peer, direction }));
        assert_eq!(field(cut(0, 1)), "faults[4].peer");
        assert_eq!(field(cut(70_000, 1)), "faults[4].peer");
        assert_eq!(field(cut(2, 0)), "faults[4].cut.direction");
        assert_eq!(field(cut(2, 9)), "faults[4].cut.direction");
    }
}
