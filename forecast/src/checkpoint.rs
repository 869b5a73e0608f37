//! A model on disk: a folder with `config.json`, `weights.safetensors` (the network) and `base.safetensors`
//! (scaling, base and innovations in f64). `config.json` holds the digests of the other two.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

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
use crate::denoiser::{Denoiser, DenoiserConfig};
use crate::innovation::Innovation;
use crate::linear::{Linear, LinearKind};
use crate::noise::Stream;
use crate::pool::Pool;
use crate::scaling::Scaling;
use crate::{Error, Model};

/// Raised with every change that an older build could not read.
const FORMAT_VERSION: u32 = 1;
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "weights.safetensors";
const BASE: &str = "base.safetensors";

#[derive(Serialize, Deserialize)]
struct Config {
    format_version: u32,
    layout: TokenLayout,
    network: DenoiserConfig,
    base: LinearKind,
    shares: Shares,
    lags: Vec<usize>,
    seasons: Vec<usize>,
    velocity_share: f64,
    pool_share: f64,
    /// SHA-256 of each other file, by name.
    digests: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// Lower-case hexadecimal SHA-256.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::CheckpointFile { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let file = fs::File::create(path)?;
        io::Write::write_all(&mut &file, bytes)?;
        file.sync_all()
    };
    write().map_err(|source| Error::CheckpointFile { path: path.into(), source })
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
        fs::create_dir_all(folder).map_err(|source| Error::CheckpointFile { path: folder.into(), source })?;
        let weights_path = folder.join(WEIGHTS);
        let mut store = SafetensorsStore::from_bytes(None);
        self.denoiser.save_into(&mut store).map_err(|error| content(&weights_path, error))?;
        let weights = store.get_bytes().map_err(|error| content(&weights_path, error))?;
        let base = self.base_tensors().map_err(|error| content(&folder.join(BASE), error))?;
        write(&weights_path, &weights)?;
        write(&folder.join(BASE), &base)?;
        let config = Config {
            format_version: FORMAT_VERSION,
            layout: self.layout,
            network: self.network.clone(),
            base: self.base.linear.kind,
            shares: self.base.correction.shares,
            lags: self.base.linear.lags.clone(),
            seasons: self.seasons.clone(),
            velocity_share: self.velocity_share,
            pool_share: self.pool.share,
            digests: BTreeMap::from([(WEIGHTS.into(), digest(&weights)), (BASE.into(), digest(&base))]),
        };
        let path = folder.join(CONFIG);
        let json = serde_json::to_vec_pretty(&config).map_err(|error| content(&path, error))?;
        write(&path, &json)?;
        Ok(digest(&json))
    }

    /// Reads a model from a folder, checking every file against its digest.
    ///
    /// # Errors
    /// - [`Error::CheckpointFile`] when a file cannot be read
    /// - [`Error::CheckpointVersion`] when a later version wrote it
    /// - [`Error::CheckpointDigest`], [`Error::CheckpointContent`] when a file is damaged
    pub fn load(folder: &Path, device: &Device) -> Result<Model, Error> {
        let path = folder.join(CONFIG);
        let json = read(&path)?;
        let version: Version = serde_json::from_slice(&json).map_err(|error| content(&path, error))?;
        if version.format_version > FORMAT_VERSION {
            return Err(Error::CheckpointVersion { path, found: version.format_version, supported: FORMAT_VERSION });
        }
        let config: Config = serde_json::from_slice(&json).map_err(|error| content(&path, error))?;
        let checked = |name: &str| {
            let path = folder.join(name);
            let bytes = read(&path)?;
            let (found, recorded) = (digest(&bytes), config.digests.get(name).cloned().unwrap_or_default());
            if found == recorded { Ok(bytes) } else { Err(Error::CheckpointDigest { path, found, recorded }) }
        };
        let (weights, base) = (checked(WEIGHTS)?, checked(BASE)?);
        let (scaling, base, innovation, pool) =
            read_base(&base, &config).map_err(|error| content(&folder.join(BASE), error))?;
        let mut denoiser = Denoiser::new(&config.network, &mut Stream::new(0, 0), device);
        let applied = denoiser.load_from(&mut SafetensorsStore::from_bytes(Some(weights)));
        applied.map_err(|error| content(&folder.join(WEIGHTS), error))?;
        Ok(Model {
            layout: config.layout,
            seasons: config.seasons,
            scaling,
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
        add("linear.weights", linear.weights.concat(), linear.weights[0].len());
        for (name, trees) in [("location", &correction.location), ("spread", &correction.spread)] {
            let (nodes, sizes) = trees.to_rows();
            add(&format!("{name}.nodes"), nodes, 4);
            add(&format!("{name}.sizes"), sizes, 1);
        }
        add("pool", self.pool.innovations.iter().map(|&z| f64::from(z)).collect(), self.pool.n_elements);
        add("deviation", deviation.clone(), self.layout.n_series);
        match correlation {
            Correlation::None => {}
            Correlation::Dense { factor } => add("correlation.factor", factor.clone(), factor.len().isqrt()),
            Correlation::Principal { directions, factors, horizon } => {
                add("correlation.directions", directions.clone(), self.layout.n_series);
                add("correlation.factors", factors.clone(), *horizon);
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

fn read_base(bytes: &[u8], config: &Config) -> Result<(Scaling, Base, Innovation, Pool), String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let values = |name: &str| -> Result<Vec<f64>, String> {
        let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
        Ok(tensor.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    };
    let scaling = |name: &str| -> Result<Scaling, String> {
        let standard = values(&format!("{name}.standard"))?;
        let knots = values(&format!("{name}.values"))?;
        let ranges = values(&format!("{name}.ranges"))?.as_chunks::<2>().0.to_vec();
        let values = knots.chunks_exact(standard.len().max(1)).map(<[f64]>::to_vec).collect();
        Ok(Scaling { standard, values, ranges })
    };
    let trees = |name: &str| -> Result<Boosting, String> {
        let n_features = Correction::n_features(&config.seasons, config.layout.n_calendar);
        let (nodes, sizes) = (values(&format!("{name}.nodes"))?, values(&format!("{name}.sizes"))?);
        Boosting::from_rows(&nodes, &sizes, n_features).ok_or_else(|| format!("{name} holds no trees"))
    };
    let (horizon, n_series) = (config.layout.horizon(), config.layout.n_series);
    let n_weights = (1 + config.layout.n_calendar + config.lags.len()) * horizon;
    let linear = Linear {
        kind: config.base,
        lags: config.lags.clone(),
        horizon,
        weights: values("linear.weights")?.chunks_exact(n_weights).map(<[f64]>::to_vec).collect(),
    };
    let correction = Correction {
        seasons: config.seasons.clone(),
        shares: config.shares,
        location: trees("location")?,
        spread: trees("spread")?,
    };
    let correlation = match values("correlation.factor") {
        Ok(factor) => Correlation::Dense { factor },
        Err(_) => Correlation::Principal {
            directions: values("correlation.directions")?,
            factors: values("correlation.factors")?,
            horizon,
        },
    };
    let innovation = Innovation { deviation: values("deviation")?, shape: scaling("shape")?, correlation };
    let scaling = scaling("scaling")?;
    if scaling.n_series() != n_series || innovation.shape.n_series() != n_series || linear.weights.is_empty() {
        return Err(format!("tensors are not those of {n_series} series"));
    }
    let pool = Pool {
        share: config.pool_share,
        n_elements: horizon * n_series,
        innovations: values("pool")?.iter().map(|&z| z as f32).collect(),
    };
    Ok((scaling, Base { linear, correction }, innovation, pool))
}
