//! Two-dimensional arrays of Postgres, which sqlx does not read by itself.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Postgres, Type};

/// A `real[][]`: as many rows as samples, as many columns as steps; row-major.
///
/// Values go to the database and come back bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    n_rows: usize,
    n_columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// # Panics
    /// When `values` does not hold `n_rows * n_columns` numbers, or there is none: Postgres has no array that is empty
    /// along one dimension.
    pub fn new(n_rows: usize, n_columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), n_rows * n_columns, "a matrix needs a value per row and column");
        assert!(!values.is_empty(), "a matrix has at least one row and one column");
        Self { n_rows, n_columns, values }
    }

    /// Number of rows (samples).
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Number of columns (steps).
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// One row, counted from 0.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.n_columns..][..self.n_columns]
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// OID of `real`, which the wire format repeats inside the array.
const REAL_OID: u32 = 700;

impl Type<Postgres> for Matrix {
    fn type_info() -> PgTypeInfo {
        <[f32] as Type<Postgres>>::type_info()
    }
}

// The binary format of an array: number of dimensions, whether there are nulls, type of the elements; length and lower
// bound of each dimension; then length and content of each element. All of it in network byte order.

impl Decode<'_, Postgres> for Matrix {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a matrix is read in the binary format only".into());
        }
        Self::from_binary(value.as_bytes()?).ok_or_else(|| "not a two-dimensional array of real without nulls".into())
    }
}

impl Matrix {
    /// As Postgres takes it.
    pub(super) fn to_binary(&self) -> Vec<u8> {
        let length =
            |n: usize| i32::try_from(n).expect("limits on samples and horizon are far below 2^31").to_be_bytes();
        let mut bytes = Vec::with_capacity(28 + 8 * self.values.len());
        bytes.extend_from_slice(&2_i32.to_be_bytes());
        bytes.extend_from_slice(&0_i32.to_be_bytes());
        bytes.extend_from_slice(&REAL_OID.to_be_bytes());
        for n in [self.n_rows, self.n_columns] {
            bytes.extend_from_slice(&length(n));
            bytes.extend_from_slice(&1_i32.to_be_bytes());
        }
        for value in &self.values {
            bytes.extend_from_slice(&4_i32.to_be_bytes());
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    fn from_binary(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let word = |i: usize| words.get(i).copied();
        let is_matrix =
            rest.is_empty() && i32::from_be_bytes(word(0)?) == 2 && u32::from_be_bytes(word(2)?) == REAL_OID;
        let n_rows = usize::try_from(i32::from_be_bytes(word(3)?)).ok()?;
        let n_columns = usize::try_from(i32::from_be_bytes(word(5)?)).ok()?;

        let (elements, rest) = words.get(7..)?.as_chunks::<2>();
        let has_all = rest.is_empty() && elements.len() == n_rows.checked_mul(n_columns)? && !elements.is_empty();
        let has_no_null = elements.iter().all(|[length, _]| i32::from_be_bytes(*length) == 4);
        (is_matrix && has_all && has_no_null).then(|| Self {
            n_rows,
            n_columns,
            values: elements.iter().map(|[_, value]| f32::from_be_bytes(*value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `'{{1,2,3},{4,5,6}}'::real[]` as Postgres sends it.
    fn binary() -> Vec<u8> {
        let header = [2_u32, 0, REAL_OID, 2, 1, 3, 1];
        let elements = (1..=6_u8).flat_map(|value| [4, f32::from(value).to_bits()]);
        header.into_iter().chain(elements).flat_map(u32::to_be_bytes).collect()
    }

    #[test]
    fn rows_are_read_in_order() {
        let matrix = Matrix::from_binary(&binary()).unwrap();
        assert_eq!(matrix, Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(matrix.row(1), [4.0, 5.0, 6.0]);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).to_binary(), binary());
    }

    #[test]
    fn whatever_is_cut_off_is_refused() {
        let binary = binary();
        for length in 0..binary.len() {
            assert_eq!(Matrix::from_binary(&binary[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn a_null_is_refused() {
        let mut binary = binary();
        binary[28..32].copy_from_slice(&(-1_i32).to_be_bytes());
        assert_eq!(Matrix::from_binary(&binary), None);
    }
}
