//! Properties of the pipeline against a simulated shell that may be killed at any moment.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A disk that outlives the process: artifacts by stage, and how often each was computed.
#[derive(Clone, Default)]
struct World {
    artifacts: BTreeMap<Stage, String>,
    computed: BTreeMap<Stage, u32>,
}

impl World {
    /// Carries out an effect as the real shell does: cache first.
    fn carry_out(&mut self, effect: &Effect) -> Event {
        let known = self.artifacts.get(&effect.stage).cloned();
        let origin = if known.is_some() { Origin::Cache } else { Origin::Computed };
        let artifact = known.unwrap_or_else(|| {
            *self.computed.entry(effect.stage).or_default() += 1;
            format!("{}<{:?}>", effect.stage, effect.inputs.len())
        });
        self.artifacts.insert(effect.stage, artifact.clone());
        Event::Done { effect: effect.id, outcome: outcome(&artifact, origin) }
    }
}

fn outcome(artifact: &str, origin: Origin) -> Outcome {
    Outcome { artifact: artifact.to_owned(), key: None, origin, millis: 1, peak_bytes: 0 }
}

fn untils() -> impl Strategy<Value = Until> {
    prop_oneof![
        Just(Until::Execute),
        Just(Until::Core),
        Just(Until::Compressed),
        Just(Until::Fold),
        Just(Until::Wrap),
        Just(Until::Groth16),
        Just(Until::Settled)
    ]
}

fn finished(state: &State) -> Vec<(Stage, String)> {
    state.stages().map(|(stage, _)| (stage, state.outcome(stage).unwrap().artifact.clone())).collect()
}

/// Runs to the end; at each step in `kills` the process dies before the effect (false) or after it (true).
fn run_with_kills(plan: &Plan, kills: &[(usize, bool)]) -> (State, World) {
    let mut world = World::default();
    let mut state = State::new(plan.clone());
    let mut effects = state.step(Event::Start).unwrap();
    for step in 0.. {
        let Some(effect) = effects.pop() else { break };
        if let Some((_, after)) = kills.iter().find(|(at, _)| *at == step) {
            if *after {
                world.carry_out(&effect);
            }
            // Only what was stored survives: the state, through its serialised form.
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            effects = state.step(Event::Resume).unwrap();
            assert_eq!(
                effects,
                vec![effect.clone()],
                "a resumed pipeline repeats exactly what was outstanding"
            );
            effects.clear();
        }
        let event = world.carry_out(&effect);
        effects = state.step(event).unwrap();
        assert!(effects.len() <= 1 && state.pending().len() <= 1, "one stage at a time");
    }
    (state, world)
}

proptest! {
    #[test]
    fn a_killed_pipeline_ends_in_the_same_state_and_does_no_stage_twice(
        runs in 1u32..6,
        until in untils(),
        kills in prop::collection::vec((0usize..16, any::<bool>()), 0..8),
    ) {
        let plan = Plan::new(runs, until);
        let (calm, _) = run_with_kills(&plan, &[]);
        let (killed, world) = run_with_kills(&plan, &kills);
        prop_assert_eq!(killed.phase(), &Phase::Complete);
        prop_assert_eq!(finished(&killed), finished(&calm));
        prop_assert!(world.computed.values().all(|count| *count == 1), "{:?}", world.computed);
        prop_assert_eq!(world.computed.len(), plan.nodes().len());
    }

    #[test]
    fn the_same_events_give_the_same_states_and_effects(
        runs in 1u32..4,
        until in untils(),
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut left = State::new(Plan::new(runs, until));
        let mut right = left.clone();
        for event in events {
            let before = left.clone();
            let result = left.step(event.clone());
            prop_assert_eq!(&result, &right.step(event.clone()));
            prop_assert_eq!(&left, &right);
            if result.is_err() {
                prop_assert_eq!(&left, &before, "a refused event must not change the state");
            }
            if before.phase().is_terminal() {
                prop_assert_eq!(result, Err(StepError::Terminal));
            }
        }
    }

    #[test]
    fn a_stage_starts_only_when_all_its_inputs_are_done(runs in 1u32..6, until in untils()) {
        let plan = Plan::new(runs, until);
        let mut state = State::new(plan.clone());
        let mut world = World::default();
        let mut effects = state.step(Event::Start).unwrap();
        while let Some(effect) = effects.pop() {
            let node = &plan.nodes()[plan.position(effect.stage).unwrap()];
            let named: Vec<Stage> = effect.inputs.iter().map(|(stage, _)| *stage).collect();
            prop_assert_eq!(&named, &node.needs);
            for (stage, artifact) in &effect.inputs {
                prop_assert_eq!(&state.outcome(*stage).unwrap().artifact, artifact);
            }
            effects = state.step(world.carry_out(&effect)).unwrap();
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let done = (0u64..12).prop_map(|effect| Event::Done { effect, outcome: outcome("x", Origin::Computed) });
    prop_oneof![
        3 => Just(Event::Start),
        20 => done,
        1 => (0u64..12).prop_map(|effect| Event::Failed { effect, reason: "no".into() }),
        4 => (0u64..12).prop_map(|effect| Event::Lost { effect, stage: Stage::Execute }),
        2 => Just(Event::Resume),
        1 => Just(Event::Cancel),
    ]
}

/// Steps until `stage` is the outstanding one and returns its effect.
fn run_up_to(state: &mut State, world: &mut World, stage: Stage) -> Effect {
    let mut effects = state.step(Event::Start).unwrap();
    loop {
        let effect = effects.pop().unwrap();
        if effect.stage == stage {
            return effect;
        }
        effects = state.step(world.carry_out(&effect)).unwrap();
    }
}

#[test]
fn a_lost_artifact_sends_its_stage_and_everything_built_on_it_back() {
    let (mut state, mut world) = (State::new(Plan::new(2, Until::Groth16)), World::default());
    let wrap = run_up_to(&mut state, &mut world, Stage::Wrap);
    world.artifacts.remove(&Stage::Fold);
    let effects = state.step(Event::Lost { effect: wrap.id, stage: Stage::Fold }).unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].stage, Stage::Fold);
    assert_eq!(state.status(Stage::Wrap), Some(&Status::Waiting));
    assert!(state.outcome(Stage::Compressed(1)).is_some(), "inputs of the lost stage stay done");
    let again = state.step(world.carry_out(&effects[0])).unwrap();
    assert_eq!(again[0].stage, Stage::Wrap);
    assert_ne!(again[0].id, wrap.id, "an old answer must not be taken for the new effect");
    assert_eq!(world.computed[&Stage::Fold], 2);
    assert_eq!(world.computed[&Stage::Execute], 1);
}

#[test]
fn a_stage_lost_for_ever_ends_the_pipeline() {
    let (mut state, mut world) = (State::new(Plan::new(1, Until::Wrap)), World::default());
    let mut effect = run_up_to(&mut state, &mut world, Stage::Wrap);
    for _ in 0..LOSSES_MAX {
        world.artifacts.remove(&Stage::Fold);
        let fold = state.step(Event::Lost { effect: effect.id, stage: Stage::Fold }).unwrap().remove(0);
        effect = state.step(world.carry_out(&fold)).unwrap().remove(0);
    }
    assert!(state.step(Event::Lost { effect: effect.id, stage: Stage::Fold }).unwrap().is_empty());
    assert!(matches!(state.phase(), Phase::Failed { stage: Stage::Fold, .. }));
}

#[test]
fn failure_and_cancellation_leave_nothing_outstanding() {
    let mut state = State::new(Plan::new(1, Until::Settled));
    let effect = state.step(Event::Start).unwrap().remove(0);
    let mut cancelled = state.clone();
    state.step(Event::Failed { effect: effect.id, reason: "out of memory".into() }).unwrap();
    assert_eq!(state.phase(), &Phase::Failed { stage: Stage::Execute, reason: "out of memory".into() });
    cancelled.step(Event::Cancel).unwrap();
    assert!(state.pending().is_empty() && cancelled.pending().is_empty());
    assert_eq!(cancelled.step(Event::Resume), Err(StepError::Terminal));
}

#[test]
fn an_answer_to_no_effect_is_refused() {
    let mut state = State::new(Plan::new(1, Until::Execute));
    state.step(Event::Start).unwrap();
    let answer = Event::Done { effect: 7, outcome: outcome("x", Origin::Computed) };
    assert_eq!(state.step(answer), Err(StepError::UnknownEffect { id: 7 }));
    assert_eq!(state.step(Event::Start), Err(StepError::WrongPhase));
}

#[test]
fn until_settled_passes_every_stage_and_until_core_aggregates_nothing() {
    let stages = |until| Plan::new(2, until).nodes().iter().map(|n| n.stage).collect::<Vec<_>>();
    use Stage::*;
    assert_eq!(
        stages(Until::Settled),
        [
            Execute,
            Compressed(0),
            Compressed(1),
            Programs,
            Fold,
            Wrap,
            Setup,
            Groth16,
            Verify,
            Settle,
            Publish
        ]
    );
    assert_eq!(stages(Until::Core), [Execute, Core(0), Core(1), Publish]);
    assert_eq!(stages(Until::Compressed), [Execute, Compressed(0), Compressed(1), Publish]);
}
