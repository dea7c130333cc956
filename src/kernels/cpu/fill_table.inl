// The table of this instruction set.

SW_INLINE KernelTable fill_table() {
  KernelTable table;
  table.rows_of_f32 = row_kernels<F32Rows>();
  table.rows_of_f16 = row_kernels<F16Rows>();
  table.rows_of_bf16 = row_kernels<Bf16Rows>();
  table.rows_of_f8 = row_kernels<F8Rows>();
  table.pack_rows = pack_rows;
  table.tile_int8 = tile_int8;
  table.tile_bytes = tile_bytes;
  table.quantize_bytes = quantize_bytes;
  table.quantize_group = quantize_group;
  table.quantize_weights = quantize_weights;
  table.widen_row_bf16 = widen_row_bf16;
  table.widen_row_f8 = widen_row_f8;
  table.round_to_bf16 = round_to_bf16;
  table.rms_norm = rms_norm;
  table.add_rms_norm = add_rms_norm;
  table.silu_mul = silu_mul;
  table.add = add;
  table.finish_rows = finish_rows;
  table.layer_norm = layer_norm;
  table.activate = activate;
  table.gated_activation = gated_activation;
  table.sequence_attention = sequence_attention;
  table.add_scaled = add_scaled;
  table.rope = rope;
  table.attention = attention_of_columns;
  table.attention_of_rows = attention_of_rows;
#if defined(__AVX512BF16__)
  table.native_bf16 = true;
  table.bf16_rows = row_kernels<DotRows>();
  table.bf16_rows_of_f8 = row_kernels<DotF8Rows>();
  table.f8_rows_max = DotF8Rows::kRows;
  table.pack_rows_bf16 = pack_rows_bf16;
#endif
  return table;
}
