//! The dependency graph of a declaration.

use super::plan::Problem;
use crate::model::{Declared, Edge, EdgeKind, NodeKind, Realm, markers, redact, unknowns};
use petgraph::algo::kosaraju_scc;
use petgraph::graphmap::DiGraphMap;
use std::collections::{BTreeMap, BTreeSet};

/// A declaration with its dependencies, in an order in which everything comes after what it needs.
pub struct Graph {
    /// Positions in [`Declared::nodes`], dependencies first.
    pub order: Vec<usize>,
    /// The dependencies of each node, by its position.
    pub edges: Vec<Vec<Edge>>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Graph {
    /// Builds the graph. Cycles and dependencies on what is not declared are problems.
    pub fn new(declared: &Declared) -> Graph {
        let mut problems = Vec::new();
        let mut edges = Vec::with_capacity(declared.nodes.len());
        let mut needs: Vec<Vec<usize>> = Vec::with_capacity(declared.nodes.len());
        let providers = provider_edges(declared, &mut problems);
        for node in &declared.nodes {
            let mut all: Vec<Edge> = unknowns(&node.inputs).flat_map(|n| sources(declared, n)).collect();
            all.extend(node.options.after.iter().map(|(to, kind)| Edge { to: to.clone(), kind: *kind }));
            all.extend(providers.get(node.provider.as_str()).into_iter().flatten().cloned());
            // Something declared inside a component that depends on the component's own parts needs no edge to itself.
            all.retain(|edge| edge.to != node.urn || edge.kind == EdgeKind::Value);
            all.sort();
            all.dedup();
            let mut positions = Vec::with_capacity(all.len());
            all.retain(|edge| match declared.position(&edge.to) {
                Some(position) => {
                    positions.push(position);
                    true
                }
                None => {
                    problems.push(Problem {
                        urn: Some(node.urn.clone()),
                        places: vec![node.place.clone()],
                        message: format!("{} needs {}, which this stack does not declare", node.urn.short(), edge.to),
                        hint: None,
                    });
                    false
                }
            });
            positions.sort_unstable();
            positions.dedup();
            needs.push(positions);
            // One dependency takes the room of four otherwise.
            all.shrink_to_fit();
            edges.push(all);
        }
        // Declaration order among equals is what a reader expects.
        let mut order = super::order::stable(&needs);
        if order.len() < needs.len() {
            order = Vec::new();
            let graph = super::order::graph(&needs);
            for ring in kosaraju_scc(&graph) {
                if ring.len() > 1 || graph.contains_edge(ring[0], ring[0]) {
                    problems.push(cycle(declared, &graph, ring[0], &ring));
                }
            }
        }
        Graph { order, edges, problems }
    }
}

/// Returns what each provider's own configuration makes everything on it depend on.
fn provider_edges<'a>(declared: &'a Declared, problems: &mut Vec<Problem>) -> BTreeMap<&'a str, Vec<Edge>> {
    let mut all = BTreeMap::new();
    for (name, provider) in &declared.providers {
        let mut edges: BTreeSet<Edge> = BTreeSet::new();
        for (_, n) in markers(&provider.config) {
            edges.extend(sources(declared, n));
        }
        match provider.kind.realm(&provider.config, &declared.vault) {
            Ok(Realm::Stated(_)) => {}
            Ok(Realm::Inside(urn)) => {
                edges.insert(Edge { to: urn, kind: EdgeKind::Container });
            }
            Err(error) => problems.push(Problem {
                urn: None,
                places: vec![provider.place.clone()],
                message: format!("what provider {name} points at cannot be told: {error}"),
                hint: None,
            }),
        }
        all.insert(name.as_str(), edges.into_iter().collect());
    }
    all
}

fn sources(declared: &Declared, n: usize) -> impl Iterator<Item = Edge> {
    let sources = declared.expressions.get(n).into_iter().flat_map(|expression| expression.sources.iter());
    sources.map(|to| Edge { to: to.clone(), kind: EdgeKind::Value })
}

/// Names a cycle as a path that comes back to where it began.
fn cycle(declared: &Declared, graph: &DiGraphMap<usize, ()>, start: usize, ring: &[usize]) -> Problem {
    let ring: BTreeSet<usize> = ring.iter().copied().collect();
    let mut path = vec![start];
    let mut passed = BTreeMap::from([(start, 0)]);
    let mut at = start;
    loop {
        let mut needs: Vec<usize> =
            graph.neighbors_directed(at, petgraph::Direction::Incoming).filter(|n| ring.contains(n)).collect();
        needs.sort_unstable();
        let next = needs.iter().copied().find(|n| !passed.contains_key(n)).or_else(|| needs.first().copied());
        let Some(next) = next else { break };
        if let Some(again) = passed.insert(next, path.len()) {
            path.drain(..again);
            path.push(next);
            break;
        }
        path.push(next);
        at = next;
    }
    let names: Vec<String> = path.iter().map(|n| declared.nodes[*n].urn.short()).collect();
    Problem {
        urn: Some(declared.nodes[start].urn.clone()),
        places: path[..path.len().saturating_sub(1)].iter().map(|n| declared.nodes[*n].place.clone()).collect(),
        message: format!("these need each other in a circle: {}", names.join(" needs ")),
        hint: Some("remove one of these dependencies".into()),
    }
}

/// Returns the declared graph as text for a snapshot: one line per resource with its inputs, secrets redacted, and
/// what it needs.
pub fn render_graph(declared: &Declared) -> String {
    let graph = Graph::new(declared);
    let mut text = String::new();
    let mut line = |depth: usize, what: String| {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&what);
        text.push('\n');
    };
    line(0, format!("stack {}", declared.stack));
    for n in &graph.order {
        let node = &declared.nodes[*n];
        let verb = match node.kind {
            NodeKind::Resource(_) => "",
            NodeKind::Read(_) => "read ",
        };
        line(1, format!("{verb}{} {} on {}", node.type_name(), node.urn.short(), node.provider));
        for edge in &graph.edges[*n] {
            let how = match edge.kind {
                EdgeKind::Value => "reads",
                EdgeKind::After => "after",
                EdgeKind::Created => "after the creation of",
                EdgeKind::Container => "inside",
            };
            line(3, format!("{how} {} {}", edge.to.kind(), edge.to.short()));
        }
        line(2, serde_json::to_string(&redact(&node.inputs.value())).unwrap_or_default());
    }
    for problem in declared.problems.iter().map(|(place, message)| format!("{message} ({place})")) {
        line(1, format!("problem: {problem}"));
    }
    text
}
