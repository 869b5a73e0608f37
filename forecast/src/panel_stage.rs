//! What comes before the network: scaling, base and law of the errors of a panel, chosen on its last fold and then fitted on
//! everything.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::conditioning::TokenLayout;
use crate::correction::{Plan, Shares};
use crate::effects::EffectKind;
use crate::linear::{LinearPlan, Member};
use crate::role::Roles;
use crate::scaling::ScalingKind;
use crate::stage::{Data, Law, Measured, Stage};
use crate::{Error, History, Progress};

/// Logarithms have to score better by this than other scalings: where nothing grows they are no better, and their draws have
/// long tails.
const LOG_PRICE: f64 = 0.05;

/// What is told of the progress of a training, and says whether it goes on.
pub(crate) type Told<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// Asks whether to go on while no network is trained yet: nothing of a base is kept that is not complete.
///
/// # Errors
/// [`Error::Stopped`] when not.
pub(crate) fn go_on(told: Told<'_>) -> Result<(), Error> {
    match told(&Progress::of_stage("base")) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Stopped),
    }
}

/// A panel that a base is fitted to.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    /// The modelled series, with known covariates beside the calendar.
    pub history: &'a History,
    pub roles: &'a Roles,
    pub layout: TokenLayout,
    pub plan: &'a LinearPlan,
}

/// What a model is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Parts {
    /// Everything.
    All,
    /// No trees.
    LinearLaw,
}

/// What was chosen on the last fold, and fitted on the others.
pub(crate) struct Chosen<'a> {
    pub kind: ScalingKind,
    pub effects: Option<EffectKind>,
    pub shares: Shares,
    pub law: Law,
    /// The data in the units that know nothing of the last fold.
    pub data: Data<'a>,
    pub stage: Stage,
    /// How long choosing the correction took.
    pub correction_seconds: f64,
    members: Vec<Member>,
}

/// A way into standard units with what follows from it, measured on the last fold.
struct Candidate<'a> {
    kind: ScalingKind,
    effects: Option<EffectKind>,
    data: Data<'a>,
    members: Vec<Member>,
    /// The linear forecaster, out of fold on the folds before the last one, with its errors.
    measured: Measured,
    law: Law,
    /// The loss of the law, with the price of the way.
    loss: f64,
}

impl Panel<'_> {
    /// All folds but the last one, and all.
    fn folds(&self) -> (Vec<usize>, Vec<usize>) {
        let last = self.plan.folds.n_folds() - 1;
        ((0..last).collect(), (0..=last).collect())
    }
}

/// Chooses scaling, base and law of the errors on the last fold.
///
/// # Errors
/// [`Error::Covariance`] when no covariance can be estimated, [`Error::Stopped`].
pub(crate) fn choose<'a>(panel: Panel<'a>, trees: Plan, parts: Parts, told: Told<'_>) -> Result<Chosen<'a>, Error> {
    let Panel { history, roles, layout, plan } = panel;
    let (earlier, _) = panel.folds();
    // What is chosen on the last fold must not know its values, not even their spread.
    let early_rows = history.values.rows(0..plan.folds.start(earlier.len()));
    let mut best: Option<Candidate<'_>> = None;
    for kind in ScalingKind::candidates(&early_rows) {
        go_on(told)?;
        let mut data = Data::new(history, roles, kind, &early_rows, layout);
        let effects = data.take_out_effects(plan, &earlier, None);
        let fitter = data.linear_fitter(plan);
        let members = fitter.choose(&history.seasons);
        let cross = fitter.cross_fit(&members, &earlier);
        let measured = data.measure(cross, earlier.clone());
        let law = data.choose_law(&measured)?;
        let price = if kind == ScalingKind::Log { LOG_PRICE } else { 0.0 };
        let loss = law.loss + price;
        if best.as_ref().is_none_or(|best| loss < best.loss) {
            best = Some(Candidate { kind, effects, data, members, measured, law, loss });
        }
    }
    let Some(Candidate { kind, effects, data, members, measured, law, .. }) = best else {
        return Err(Error::Covariance);
    };
    // The trees take most of the time, and hardly depend on the scaling: they come once it is chosen.
    go_on(told)?;
    let begun = Instant::now();
    let (measured, law) = match parts {
        Parts::LinearLaw => (measured, law),
        Parts::All => best_correction(&data, measured, law, trees)?,
    };
    let correction_seconds = begun.elapsed().as_secs_f64();
    let shares = measured.shares();
    let stage = data.stage(measured, law)?;
    Ok(Chosen { kind, effects, shares, law, data, stage, correction_seconds, members })
}

impl Chosen<'_> {
    /// What was chosen, fitted on all folds: the data, their stage, and the linear base in words.
    ///
    /// # Errors
    /// [`Error::Covariance`] when no covariance can be estimated.
    pub fn on_everything<'b>(&self, panel: Panel<'b>, trees: Plan) -> Result<(Data<'b>, Stage, String), Error> {
        let Panel { history, roles, layout, plan } = panel;
        let (_, all) = panel.folds();
        let mut data = Data::new(history, roles, self.kind, &history.values, layout);
        data.take_out_effects(plan, &all, Some(self.effects.clone()));
        let cross = data.linear_fitter(plan).cross_fit(&self.members, &all);
        let base = cross.whole.to_string();
        let stage = data.stage(data.correct(data.measure(cross, all), self.shares, trees), self.law)?;
        Ok((data, stage, base))
    }
}

/// The correction whose law scores best on the last fold, with that law. `law` is the one without a correction.
fn best_correction(data: &Data<'_>, measured: Measured, law: Law, trees: Plan) -> Result<(Measured, Law), Error> {
    let mut best: Option<(Measured, Law)> = None;
    for measured in data.corrections(measured, trees) {
        let law = if measured.shares() == Shares::default() { law } else { data.choose_law(&measured)? };
        if best.as_ref().is_none_or(|(_, best)| law.loss < best.loss) {
            best = Some((measured, law));
        }
    }
    best.ok_or(Error::Covariance)
}
