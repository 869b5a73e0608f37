//! A model on disk: a folder with `config.json`, `weights.safetensors` (the network) and `base.safetensors`
//! (scaling, base and innovations in f64). `config.json` holds the digests of the other two. Where there are known
//! covariates, the folder `covariates` in it has the model of their joint law.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::Base;
use crate::boosting::Boosting;
use crate::conditioning::TokenLayout;
use crate::correction::{Correction, Shares};
use crate::correlation::Correlation;
use crate::covariates::{self, Covariates};
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::effects::{Effects, Functions};
use crate::innovation::Innovation;
use crate::linear::{Linear, LinearKind, Member};
use crate::noise::Stream;
use crate::pool::Pool;
use crate::quantile_trees::{N_LEVELS, QuantileTrees};
use crate::role::{Role, Roles};
use crate::scaling::{Edge, Scaling};
use crate::support::Support;
use crate::{Error, Model};

/// Raised with every change that an older build could not read. Version 1 knows no roles: all series are targets. Up to version
/// 2 the linear base is a single forecaster; up to version 3 quantiles of its errors do not move; up to version 4 the principal
/// structure has no gains; up to version 5 maps do not bend towards bounds.
const FORMAT_VERSION: u32 = 6;
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "weights.safetensors";
const BASE: &str = "base.safetensors";
/// Where the maps bend, `[series, (bound, nearest) below and above]`.
const EDGES: &str = "scaling.edges";
/// Folder of the law of the known covariates, in that of the model.
const COVARIATES: &str = "covariates";

#[derive(Serialize, Deserialize)]
struct Config {
    format_version: u32,
    layout: TokenLayout,
    network: DenoiserConfig,
    base: Members,
    shares: Shares,
    lags: Vec<usize>,
    seasons: Vec<usize>,
    /// Which values each modelled series can take; empty in models of which it was not said.
    #[serde(default)]
    supports: Vec<Support>,
    velocity_share: f64,
    pool_share: f64,
    /// What each series of the panel is; empty when all are targets.
    #[serde(default)]
    roles: Vec<Role>,
    #[serde(default)]
    covariates: Option<CovariatesConfig>,
    /// SHA-256 of each other file, by name.
    digests: BTreeMap<String, String>,
}

/// The known covariates, apart from numbers in `base.safetensors` and their law in a folder of its own.
#[derive(Serialize, Deserialize)]
struct CovariatesConfig {
    /// Whether effects depend on the calendar.
    with_calendar: bool,
    /// Covariate of each hinge.
    hinges: Vec<usize>,
    /// SHA-256 of the `config.json` of their law.
    law: String,
}

/// The members of the linear base.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Members {
    Average(Vec<Member>),
    /// Up to version 2.
    Single(LinearKind),
}

impl Members {
    fn into_vec(self, n_lags: usize) -> Vec<Member> {
        match self {
            Self::Average(members) => members,
            Self::Single(kind) => vec![Member { kind, n_lags, share: 1.0 }],
        }
    }
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// Lower-case hexadecimal SHA-256.
fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Reads a file by its path.
type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let file = fs::File::create(path)?;
    io::Write::write_all(&mut &file, bytes)?;
    file.sync_all()
}

/// A network's weights as a safetensors file.
pub(crate) fn weights_of(denoiser: &Denoiser) -> Result<Vec<u8>, String> {
    let mut store = SafetensorsStore::from_bytes(None);
    denoiser.save_into(&mut store).map_err(|error| error.to_string())?;
    store.get_bytes().map_err(|error| error.to_string())
}

fn content(path: &Path, problem: impl ToString) -> Error {
    Error::CheckpointContent { path: path.into(), problem: problem.to_string() }
}

impl Model {
    /// Writes the model into a folder, which is created, and returns the digest of its `config.json`.
    ///
    /// Since `config.json` names the digests of the other files, this digest stands for the whole model.
    ///
    /// # Errors
    /// [`Error::CheckpointFile`] or [`Error::CheckpointContent`] with the file at fault.
    pub fn save(&self, folder: &Path) -> Result<String, Error> {
        self.save_with(folder, &mut write_file)
    }

    /// As [`Model::save`], with `write` for each file; it makes the folders that it needs.
    ///
    /// # Errors
    /// Those of [`Model::save`].
    pub fn save_with(
        &self,
        folder: &Path,
        write: &mut dyn FnMut(&Path, &[u8]) -> io::Result<()>,
    ) -> Result<String, Error> {
        let mut put = |path: &Path, bytes: &[u8]| {
            write(path, bytes).map_err(|source| Error::CheckpointFile { path: path.into(), source })
        };
        let weights_path = folder.join(WEIGHTS);
        let weights = weights_of(&self.denoiser).map_err(|error| content(&weights_path, error))?;
        let base = self.base_tensors().map_err(|error| content(&folder.join(BASE), error))?;
        put(&weights_path, &weights)?;
        put(&folder.join(BASE), &base)?;
        let covariates = match &self.covariates {
            None => None,
            Some(Covariates { law, effects, .. }) => Some(CovariatesConfig {
                with_calendar: effects.functions.with_calendar,
                hinges: effects.functions.hinges.iter().map(|&(covariate, _)| covariate).collect(),
                law: law.save_with(&folder.join(COVARIATES), write)?,
            }),
        };
        let config = Config {
            roles: if self.roles.are_all_targets() { vec![] } else { self.roles.all.clone() },
            covariates,
            format_version: FORMAT_VERSION,
            layout: self.layout,
            network: self.network.clone(),
            base: Members::Average(self.base.linear.members.clone()),
            shares: self.base.correction.shares,
            lags: self.base.linear.lags.clone(),
            seasons: self.seasons.clone(),
            supports: self.supports.clone(),
            velocity_share: self.velocity_share,
            pool_share: self.pool.share,
            digests: BTreeMap::from([(WEIGHTS.into(), digest(&weights)), (BASE.into(), digest(&base))]),
        };
        let path = folder.join(CONFIG);
        let json = serde_json::to_vec_pretty(&config).map_err(|error| content(&path, error))?;
        write(&path, &json).map_err(|source| Error::CheckpointFile { path, source })?;
        Ok(digest(&json))
    }

    /// Reads a model from a folder, checking every file against its digest.
    ///
    /// # Errors
    /// - [`Error::CheckpointFile`] when a file cannot be read
    /// - [`Error::CheckpointVersion`] when a later version wrote it
    /// - [`Error::CheckpointDigest`], [`Error::CheckpointContent`] when a file is damaged
    pub fn load(folder: &Path, device: &Device) -> Result<Model, Error> {
        let read = |path: &Path| fs::read(path);
        Self::load_any(folder, None, &read, device)
    }

    /// As [`Model::load`], with `read` for each file, and only the model of the digest that [`Model::save`] gave.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_with(folder: &Path, digest: &str, read: Read<'_>, device: &Device) -> Result<Model, Error> {
        Self::load_any(folder, Some(digest), read, device)
    }

    fn load_any(folder: &Path, recorded: Option<&str>, read: Read<'_>, device: &Device) -> Result<Model, Error> {
        let get = |path: &Path| read(path).map_err(|source| Error::CheckpointFile { path: path.into(), source });
        let path = folder.join(CONFIG);
        let json = get(&path)?;
        if let (found, Some(recorded)) = (digest(&json), recorded)
            && found != recorded
        {
            return Err(Error::CheckpointDigest { path, found, recorded: recorded.to_owned() });
        }
        let version: Version = serde_json::from_slice(&json).map_err(|error| content(&path, error))?;
        if version.format_version > FORMAT_VERSION {
            return Err(Error::CheckpointVersion { path, found: version.format_version, supported: FORMAT_VERSION });
        }
        let config: Config = serde_json::from_slice(&json).map_err(|error| content(&path, error))?;
        let checked = |name: &str| {
            let path = folder.join(name);
            let bytes = get(&path)?;
            let (found, recorded) = (digest(&bytes), config.digests.get(name).cloned().unwrap_or_default());
            if found == recorded { Ok(bytes) } else { Err(Error::CheckpointDigest { path, found, recorded }) }
        };
        let (weights, base) = (checked(WEIGHTS)?, checked(BASE)?);
        let of_base = |error: String| content(&folder.join(BASE), error);
        let n_series = if config.roles.is_empty() { config.layout.n_series } else { config.roles.len() };
        let roles = Roles::new(&config.roles, n_series).map_err(|error| content(&path, error))?;
        if roles.modelled.len() != config.layout.n_series || roles.known.len() != config.layout.n_known {
            return Err(content(&path, "roles and layout disagree"));
        }
        let covariates = match &config.covariates {
            None => None,
            Some(of_config) => {
                let law = Model::load_any(&folder.join(COVARIATES), Some(&of_config.law), read, device)?;
                Some(read_covariates(&base, &config, of_config, law).map_err(of_base)?)
            }
        };
        if covariates.is_some() == roles.known.is_empty() {
            return Err(content(&path, "roles and covariates disagree"));
        }
        let (scaling, base, innovation, pool) = read_base(&base, &config, &roles).map_err(of_base)?;
        let mut supports = config.supports;
        if supports.is_empty() {
            supports = vec![Support::default(); config.layout.n_series];
        }
        if supports.len() != config.layout.n_series {
            return Err(content(&path, "supports and layout disagree"));
        }
        let mut denoiser = Denoiser::new(&config.network, &mut Stream::new(0, 0), device);
        let applied = denoiser.load_from(&mut SafetensorsStore::from_bytes(Some(weights)));
        applied.map_err(|error| content(&folder.join(WEIGHTS), error))?;
        Ok(Model {
            roles,
            covariates,
            layout: config.layout,
            seasons: config.seasons,
            scaling,
            supports,
            base,
            innovation,
            pool,
            network: config.network,
            denoiser,
            velocity_share: config.velocity_share,
            device: device.clone(),
        })
    }

    fn base_tensors(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let Base { linear, correction } = &self.base;
        let Innovation { deviation, shape, correlation } = &self.innovation;
        let mut tensors: Vec<(String, Vec<f64>, Vec<usize>)> = vec![];
        let mut add = |name: &str, values: Vec<f64>, width: usize| {
            let n_rows = values.len() / width.max(1);
            tensors.push((name.into(), values, vec![n_rows, width]));
        };
        for (name, scaling) in [("scaling", &self.scaling), ("shape", shape)] {
            add(&format!("{name}.standard"), scaling.standard.clone(), 1);
            add(&format!("{name}.values"), scaling.values.concat(), scaling.standard.len());
            add(&format!("{name}.ranges"), scaling.ranges.concat(), 2);
        }
        add(EDGES, self.scaling.edges.iter().flatten().flat_map(edge_numbers).collect(), 4);
        add("linear.weights", linear.weights.concat(), linear.weights[0].len());
        for (name, trees) in [("location", &correction.location), ("spread", &correction.spread)] {
            let (nodes, sizes) = trees.to_rows();
            add(&format!("{name}.nodes"), nodes, 4);
            add(&format!("{name}.sizes"), sizes, 1);
        }
        if correction.shares.quantiles > 0.0 {
            let (nodes, sizes) = correction.quantiles.to_rows();
            add("quantiles.nodes", nodes, 3 + N_LEVELS);
            add("quantiles.sizes", sizes, 1);
            add("quantiles.usual", correction.quantiles.usual.map(f64::from).to_vec(), N_LEVELS);
            add("quantiles.usual_sizes", correction.sizes.to_vec(), self.layout.n_series);
        }
        add("pool", self.pool.innovations.iter().map(|&z| f64::from(z)).collect(), self.pool.n_elements);
        add("deviation", deviation.clone(), self.layout.n_series);
        if let Some(Covariates { scaling, effects, .. }) = &self.covariates {
            add("covariates.values", scaling.values.concat(), scaling.standard.len());
            add("covariates.ranges", scaling.ranges.concat(), 2);
            add("effects.hinges", effects.functions.hinges.iter().map(|&(_, at)| at).collect(), 1);
            add("effects.weights", effects.weights.concat(), effects.weights.first().map_or(0, Vec::len));
        }
        match correlation {
            Correlation::None => {}
            Correlation::Dense { factor } => add("correlation.factor", factor.clone(), factor.len().isqrt()),
            Correlation::Principal { directions, factors, gains, horizon } => {
                add("correlation.directions", directions.clone(), self.layout.n_series);
                add("correlation.factors", factors.clone(), *horizon);
                add("correlation.gains", gains.clone(), self.layout.n_series);
            }
        }
        let bytes: Vec<(String, Vec<u8>, Vec<usize>)> = tensors
            .into_iter()
            .map(|(name, values, shape)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect(), shape))
            .collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (name, bytes, shape) in &bytes {
            views.push((name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes)?));
        }
        safetensors::serialize(views, None)
    }
}

fn tensors_of(bytes: &[u8]) -> Result<SafeTensors<'_>, String> {
    SafeTensors::deserialize(bytes).map_err(|error| error.to_string())
}

fn tensor(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f64>, String> {
    let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
    Ok(tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

/// Bound and nearest training value of an edge; `NaN` where there is none.
fn edge_numbers(edge: &Option<Edge>) -> [f64; 2] {
    edge.map_or([f64::NAN; 2], |edge| [edge.bound, edge.nearest])
}

fn read_edges(numbers: &[f64]) -> Vec<[Option<Edge>; 2]> {
    let edge = |[bound, nearest]: [f64; 2]| (!bound.is_nan()).then_some(Edge { bound, nearest });
    numbers.as_chunks::<4>().0.iter().map(|&[a, b, c, d]| [edge([a, b]), edge([c, d])]).collect()
}

fn read_covariates(
    bytes: &[u8],
    config: &Config,
    of_config: &CovariatesConfig,
    law: Model,
) -> Result<Covariates, String> {
    let tensors = tensors_of(bytes)?;
    let values = |name: &str| tensor(&tensors, name);
    let (knots, ranges) = (values("covariates.values")?, values("covariates.ranges")?);
    let scaling = Scaling {
        standard: vec![0.0, 1.0],
        values: knots.chunks_exact(2).map(<[f64]>::to_vec).collect(),
        ranges: ranges.as_chunks::<2>().0.to_vec(),
        edges: vec![[None; 2]; config.layout.n_known],
    };
    let (n_known, n_series) = (config.layout.n_known, config.layout.n_series);
    let functions = Functions {
        n_known,
        hinges: of_config.hinges.iter().copied().zip(values("effects.hinges")?).collect(),
        with_calendar: of_config.with_calendar,
    };
    let weights = values("effects.weights")?;
    let n_functions = functions.len(config.layout.n_calendar);
    let is_whole = weights.is_empty() || weights.len() == n_series * n_functions;
    let is_known = functions.hinges.len() == of_config.hinges.len()
        && functions.hinges.iter().all(|&(covariate, _)| covariate < n_known);
    if scaling.n_series() != n_known
        || law.roles.all.len() != n_known
        || law.seasons != config.seasons
        || !is_whole
        || !is_known
    {
        return Err(format!("tensors are not those of {n_known} covariates"));
    }
    let weights = weights.chunks_exact(n_functions.max(1)).map(<[f64]>::to_vec).collect();
    let effects = Effects { functions, weights };
    Ok(Covariates { scaling, law: Box::new(law), effects })
}

fn read_base(bytes: &[u8], config: &Config, roles: &Roles) -> Result<(Scaling, Base, Innovation, Pool), String> {
    let tensors = tensors_of(bytes)?;
    let values = |name: &str| tensor(&tensors, name);
    let scaling = |name: &str| -> Result<Scaling, String> {
        let standard = values(&format!("{name}.standard"))?;
        let knots = values(&format!("{name}.values"))?;
        let ranges = values(&format!("{name}.ranges"))?.as_chunks::<2>().0.to_vec();
        let values = knots.chunks_exact(standard.len().max(1)).map(<[f64]>::to_vec).collect();
        let edges = vec![[None; 2]; ranges.len()];
        Ok(Scaling { standard, values, ranges, edges })
    };
    let n_of_step = config.layout.n_calendar + covariates::n_features(config.layout.n_known, &config.seasons);
    let n_features = Correction::n_features(&config.seasons, n_of_step, roles.past.len());
    let trees = |name: &str| -> Result<Boosting, String> {
        let (nodes, sizes) = (values(&format!("{name}.nodes"))?, values(&format!("{name}.sizes"))?);
        Boosting::from_rows(&nodes, &sizes, n_features).ok_or_else(|| format!("{name} holds no trees"))
    };
    let (horizon, n_series) = (config.layout.horizon(), config.layout.n_series);
    let n_weights = Linear::n_weights(config.layout.n_calendar, roles.past.len(), config.lags.len(), horizon);
    let linear = Linear {
        members: config.base.clone().into_vec(config.lags.len()),
        lags: config.lags.clone(),
        horizon,
        weights: values("linear.weights")?.chunks_exact(n_weights).map(<[f64]>::to_vec).collect(),
    };
    let (quantiles, sizes) = if config.shares.quantiles > 0.0 {
        let (nodes, sizes) = (values("quantiles.nodes")?, values("quantiles.sizes")?);
        let trees = QuantileTrees::from_rows(&nodes, &sizes, &values("quantiles.usual")?, n_features);
        let usual_sizes: Arc<[f64]> = values("quantiles.usual_sizes")?.into();
        if usual_sizes.len() != horizon * n_series {
            return Err(format!("quantiles.usual_sizes are not those of {n_series} series"));
        }
        (trees.ok_or("quantiles holds no trees")?, usual_sizes)
    } else {
        (QuantileTrees::default(), Arc::default())
    };
    let correction = Correction {
        seasons: config.seasons.clone(),
        shares: config.shares,
        location: trees("location")?,
        spread: trees("spread")?,
        quantiles,
        sizes,
    };
    let correlation = match values("correlation.factor") {
        Ok(factor) => Correlation::Dense { factor },
        Err(_) => Correlation::Principal {
            directions: values("correlation.directions")?,
            factors: values("correlation.factors")?,
            // Those of before had none.
            gains: values("correlation.gains").unwrap_or_else(|_| vec![1.0; horizon * n_series]),
            horizon,
        },
    };
    let innovation = Innovation { deviation: values("deviation")?, shape: scaling("shape")?, correlation };
    let mut scaling = scaling("scaling")?;
    if tensors.tensor(EDGES).is_ok() {
        scaling.edges = read_edges(&values(EDGES)?);
    }
    let n_found = [scaling.n_series(), scaling.edges.len(), innovation.shape.n_series()];
    if n_found != [n_series; 3] || linear.weights.is_empty() {
        return Err(format!("tensors are not those of {n_series} series"));
    }
    let pool = Pool {
        share: config.pool_share,
        n_elements: horizon * n_series,
        innovations: values("pool")?.iter().map(|&z| z as f32).collect(),
    };
    Ok((scaling, Base { linear, correction }, innovation, pool))
}
