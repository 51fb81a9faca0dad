//! The command line: one file for each command. Commands for a running cluster are clients like any other and know
//! nothing of the inside of a node.

mod audit;
mod breaker;
mod chaos;
mod client;
mod completions;
mod console;
mod dead_letter;
mod entity;
mod events;
mod failure;
mod group;
mod kill;
mod logs;
mod node;
mod order;
mod output;
mod price;
mod product;
mod projection;
mod provider;
mod quarantine;
mod restart;
mod saga;
mod schema;
mod shop;
mod status;
mod stock;
mod supervision;
mod timers;
mod top;
mod trace;
mod up;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    client::{CallError, Client},
    failure::Failure,
};

/// Durable actors that survive kill -9: a cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "playhouse", version, max_term_width = 100, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster: real node processes and a payment provider.
    Up(up::Up),
    /// Run one node from a configuration file; join, cordon, drain and remove nodes.
    Node(node::Node),
    /// Run the payment provider.
    Provider(provider::Provider),
    /// Print what a shell needs to complete the words of a command.
    Completions(completions::Completions),
    // What its help says stands with its arguments.
    Console(console::Console),
    /// Show nodes, shards, leaders, replicas and lag.
    Status(status::Status),
    // What its help says stands with its arguments.
    Top(top::Top),
    /// Look at any entity.
    #[command(subcommand)]
    Entity(entity::Entity),
    /// Show who has asked for what, who has looked, and who has changed something by hand.
    Audit(audit::Audit),
    /// Find traces, look at one, compare two, see who calls whom.
    #[command(subcommand)]
    Trace(trace::Trace),
    /// Show the log lines of all nodes by time, follow those that come, and set which are written.
    Logs(Box<logs::Logs>),
    /// List timers, the most urgent first.
    Timers(timers::Timers),
    /// List and explain sagas, and nudge one that needs help.
    #[command(subcommand)]
    Saga(saga::Saga),
    /// Show how failures are met: restarts, breakers, bulkheads, quarantine.
    Supervision(supervision::Supervision),
    /// Look at quarantined entities, and let them go on.
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// Show and force the breakers to dependencies outside.
    #[command(subcommand)]
    Breaker(breaker::Breaker),
    /// Read the events of the cluster, from any place on.
    Events(events::Events),
    /// Look at consumer groups, reset and delete them.
    #[command(subcommand)]
    Group(group::Group),
    /// Look at what consumer groups have put aside; retry or skip it.
    #[command(subcommand)]
    DeadLetter(dead_letter::DeadLetter),
    /// Look at what is stored, and check a build before it is rolled out.
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Look at read models, ask them, build them anew.
    #[command(subcommand)]
    Projection(projection::Projection),
    /// Put and show products.
    #[command(subcommand)]
    Product(product::Product),
    /// Receive, show and write off stock.
    #[command(subcommand)]
    Stock(stock::Stock),
    /// Place, show, watch, cancel and return orders.
    #[command(subcommand)]
    Order(Box<order::Order>),
    /// Kill a node of a local cluster with SIGKILL.
    Kill(kill::Kill),
    /// Stop a node of a local cluster with SIGSTOP; it keeps its connections and answers nothing.
    Pause(kill::Pause),
    /// Let a paused node go on with SIGCONT.
    Resume(kill::Resume),
    /// Start a node of a local cluster again.
    Restart(restart::Restart),
    /// Replay a file of invoices as clients.
    Shop(shop::Shop),
    /// Check that nothing is lost, doubled or unequal.
    Verify(verify::Verify),
    // What its help says stands with its arguments.
    Chaos(chaos::Chaos),
}

/// Parses the command line, carries the command out and gives the exit code: 0 ok, 1 the answer is no, 2 wrong usage,
/// 3 no cluster could be reached.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        // These make their own runtime.
        Command::Node(node) => match node.run_node() {
            Some(code) => return code,
            None => block_on(traced(Command::Node(node))),
        },
        Command::Provider(provider) => return provider.run(),
        Command::Completions(completions) => return completions.run::<Cli>(),
        command => block_on(traced(command)),
    };
    result.unwrap_or_else(|failure| failure.report())
}

/// Carries a command out and hands its trace to the cluster.
async fn traced(command: Command) -> Result<ExitCode, Failure> {
    let result = dispatch(command).await;
    client::trace::hand_over(result.as_ref().err().map(ToString::to_string)).await;
    result
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(up) => up.run().await,
        Command::Node(node) => node.run().await,
        Command::Provider(provider) => Ok(provider.run()),
        Command::Console(console) => console.run().await,
        Command::Status(status) => status.run().await,
        Command::Top(top) => top.run().await,
        Command::Entity(entity) => entity.run().await,
        Command::Audit(audit) => audit.run().await,
        Command::Trace(trace) => trace.run().await,
        Command::Logs(logs) => logs.run().await,
        Command::Completions(completions) => Ok(completions.run::<Cli>()),
        Command::Timers(timers) => timers.run().await,
        Command::Saga(saga) => saga.run().await,
        Command::Supervision(supervision) => supervision.run().await,
        Command::Quarantine(quarantine) => quarantine.run().await,
        Command::Breaker(breaker) => breaker.run().await,
        Command::Events(events) => events.run().await,
        Command::Group(group) => group.run().await,
        Command::DeadLetter(letter) => letter.run().await,
        Command::Schema(schema) => schema.run().await,
        Command::Projection(projection) => projection.run().await,
        Command::Product(product) => product.run().await,
        Command::Stock(stock) => stock.run().await,
        Command::Order(order) => order.run().await,
        Command::Kill(kill) => kill.run().await,
        Command::Pause(pause) => pause.run().await,
        Command::Resume(resume) => resume.run().await,
        Command::Restart(restart) => restart.run().await,
        Command::Shop(shop) => shop.run().await,
        Command::Verify(verify) => verify.run().await,
        Command::Chaos(chaos) => chaos.run().await,
    }
}

/// Runs a command on this one thread. For `up` that is a must: children are told to die with the thread that started
/// them, so it has to be the main one. The others need no more.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::no(format!("the runtime cannot start: {error}")))?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_documentation_parse() {
        for line in [
            "up --nodes 3 --data d --base-port 7100 --load 50 --json",
            "up --no-load",
            "node --config d/node-1.toml",
            "node join --base-port 7100",
            "node cordon 2",
            "node uncordon 2",
            "node drain 2 --force --no-wait",
            "node remove 4 --json",
            "restart --rolling",
            "console --json --base-port 7100",
            "top --once",
            "top --json --every 2",
            "status --json --base-port 7100",
            "entity show order/42 --json",
            "entity show order/42 --at 2",
            "entity show order/42 --at 2026-11-21T10:30:00Z --json",
            "entity diff order/42 1 3",
            "entity diff order/42 0 1795257000000 --json",
            "entity replay order/42",
            "entity replay --kind order --limit 100 --since 2026-11-21T00:00:00Z --json",
            "entity forget customer/ann --reason asked",
            "entity forget --verify customer/ann --json",
            "audit order/42",
            "audit --who shop/ann --since 2026-11-21T00:00:00Z --json",
            "product put tea --name Tea --price 2.55",
            "stock receive tea 100 --address 127.0.0.1:7001,127.0.0.1:7002",
            "stock show tea",
            "order place --customer ann --line tea:3 --line cup:1 --json",
            "order show 42",
            "order watch 42",
            "order cancel 42",
            "kill 2",
            "restart 2 --base-port 7100",
            "shop --orders invoices.csv.gz --rate 50 --json",
            "verify --json",
            "chaos",
            "chaos --for 10m --faults kill,slow-disk --seed 7 --rate 50 --json --base-port 7100",
            "chaos --for 90s --data d",
            "saga list --state stuck --kind checkout --older-than 5m --limit 50 --json",
            "saga show checkout/42",
            "saga explain 42 --json",
            "saga nudge checkout/42",
            "supervision --json",
            "quarantine list",
            "quarantine show order/42 --json",
            "quarantine retry order/42 --request-id r-1",
            "quarantine skip order/42",
            "breaker list --json",
            "events",
            "events --kind order --kind payment --from beginning --follow --json",
            "events --entity order/42 --from 2026-11-21T09:00:00Z",
            "group list --json",
            "group show mailer",
            "group reset mailer --to now --shard 3",
            "group delete mailer",
            "dead-letter list mailer --json",
            "projection list --json",
            "projection show sales",
            "projection query orders --json {} --stale 2s",
            "projection rebuild sales --wait --wait-seconds 60",
            "dead-letter show mailer 3",
            "dead-letter retry mailer 3",
            "dead-letter skip mailer 3",
            "breaker open payment-provider",
            "breaker close payment-provider",
            "breaker auto payment-provider",
            "schema list --kind order --json",
            "schema check --base-port 7100",
            "trace list --entity order/42 --saga checkout --user ann --status error --min 250ms --text 503 --limit 5 --json",
            "trace show 0af7651916cd43dd8448eb211c80319c --json",
            "trace show 0af7651916cd43dd8448eb211c80319c --details",
            "trace compare 0af7651916cd43dd8448eb211c80319c 0af7651916cd43dd8448eb211c80319d",
            "trace graph --json",
            "trace stores",
            "trace purge order/42",
            "logs --follow --node 2 --level warn --grep late --json",
            "logs --trace 0af7651916cd43dd8448eb211c80319c --base-port 7100",
            "logs level info,cluster=debug --node 2",
            "completions bash",
        ] {
            let words = ["playhouse"].into_iter().chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_by_the_parser() {
        for line in [
            "product put tea --name Tea --price 2.555",
            "product put tea --name Tea --price -1",
            "stock receive tea 0",
            "stock receive tea -5",
            "order place --customer ann",
            "order place --line tea:0",
            "order place --line tea:99999999999",
            "kill 0",
            "entity show order/42 --at yesterday",
            "entity show order/42 --at 2 --stale 1s",
            "entity diff order/42 1",
            "entity replay",
            "entity replay order/42 --kind order",
            "entity replay order/42 --limit 3",
            "entity forget order",
            "audit --since soon",
            "node",
            "node drain",
            "node drain 0",
            "restart",
            "restart 2 --rolling",
            "saga list --state lost",
            "saga list --older-than soon",
            "saga explain",
            "status --base-port 0",
            "status --address 7001",
            "up --nodes 0",
            "up --load 5 --no-load",
            "chaos --faults kill,explode",
            "chaos --for soon",
            "chaos --for 0s",
            "chaos --rate 0",
            "chaos --seed x",
            "trace show 42",
            "trace list --status maybe",
            "trace list --min 5",
            "logs --level loud",
            "completions tcsh",
        ] {
            let words = ["playhouse"].into_iter().chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
