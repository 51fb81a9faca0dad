//! Whether the simulation would notice: every planted bug, the seed at which it is noticed first, and by which invariant.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use cluster::simulation::engine;
use parking_lot::Mutex;
use serde_json::json;

use crate::{arguments::Arguments, shop, worlds::World};

/// A planted bug, in whatever world.
struct Bug {
    name: &'static str,
    world: &'static str,
    seeds_max: u64,
    /// The invariant that a seed breaks, if it breaks one.
    breaks: Box<dyn Fn(u64) -> Option<&'static str> + Send + Sync>,
}

/// When it was noticed: after so many seeds, by this invariant.
type Noticed = Option<(u64, &'static str)>;

fn all() -> Vec<Bug> {
    let engines = engine::planted().into_iter().map(|planted| Bug {
        name: planted.name,
        world: planted.kind.name(),
        seeds_max: planted.seeds_max,
        breaks: Box::new(move |seed| planted.run(seed).violation.map(|violation| violation.invariant)),
    });
    let shops = shop::PLANTED.into_iter().map(|planted| Bug {
        name: planted.name,
        world: World::Shop.name(),
        seeds_max: planted.seeds_max,
        breaks: Box::new(move |seed| planted.run(seed).err().map(|found| found.invariant)),
    });
    engines.chain(shops).collect()
}

/// Looks for all of them from the first seed on, and prints the table. Whether each was noticed in time.
pub(crate) fn run(arguments: &Arguments) -> bool {
    let worlds: Vec<&str> = arguments.worlds().into_iter().map(World::name).collect();
    let bugs: Vec<Bug> = all().into_iter().filter(|bug| worlds.contains(&bug.world)).collect();
    let noticed: Mutex<Vec<Noticed>> = Mutex::new(vec![None; bugs.len()]);
    let next = AtomicUsize::new(0);
    let first = arguments.seed;
    let work = || {
        while let Some((place, bug)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, bugs.get(n)?)))
        {
            let found = (0..bug.seeds_max).find_map(|n| Some((n + 1, (bug.breaks)(first + n)?)));
            noticed.lock()[place] = found;
        }
    };
    thread::scope(|scope| {
        for _ in 0..arguments.threads() {
            scope.spawn(work);
        }
    });
    let noticed = noticed.into_inner();
    if arguments.json {
        println!("{:#}", as_json(&bugs, &noticed));
    } else {
        print!("{}", as_text(&bugs, &noticed));
    }
    noticed.iter().all(Option::is_some)
}

/// A table as it stands in a document.
fn as_text(bugs: &[Bug], noticed: &[Noticed]) -> String {
    let mut text =
        "| planted bug | world | found after seeds | of at most | by |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for (bug, noticed) in bugs.iter().zip(noticed) {
        let (after, by) = match noticed {
            Some((after, by)) => (after.to_string(), *by),
            None => ("not found".to_owned(), "-"),
        };
        text.extend([format!(
            "| {} | {} | {after} | {} | {by} |\n",
            bug.name, bug.world, bug.seeds_max
        )]);
    }
    text
}

fn as_json(bugs: &[Bug], noticed: &[Noticed]) -> serde_json::Value {
    let rows = bugs.iter().zip(noticed).map(|(bug, noticed)| {
        json!({
            "name": bug.name,
            "world": bug.world,
            "seeds_max": bug.seeds_max,
            "found_after": noticed.map(|(after, _)| after),
            "by": noticed.map(|(_, by)| by),
        })
    });
    rows.collect()
}
