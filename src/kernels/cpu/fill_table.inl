// The table of this instruction set.

SW_INLINE KernelTable fill_table() {
  KernelTable table;
  table.tile_f32 = tile_f32_of<float>;
  table.tile_f32_of_bf16 = tile_f32_of<uint16_t>;
  table.tile_f32_of_f8 = tile_f32_of<uint8_t>;
  table.tile_int8 = tile_int8;
  table.tile_bytes = tile_bytes;
  table.quantize_bytes = quantize_bytes;
  table.widen_f16 = widen_f16;
  table.widen_bf16 = widen<uint16_t>;
  table.widen_f8 = widen<uint8_t>;
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
#if defined(__AVX512F__)
  table.pack_floats = pack_floats;
#endif
#if defined(__AVX512BW__)
  table.copy_words = copy_words;
  table.copy_pairs = copy_pairs;
  table.quantize_panel = quantize_panel;
#endif
#if defined(__AVX512BF16__)
  table.native_bf16 = true;
  table.tile_bf16 = tile_bf16;
  table.pack_pairs = pack_pairs;
  table.tile_f8 = tile_f8;
  table.f8_rows_max = kF8RowsMax;
  table.widen_f8_to_bf16 = widen_f8_to_bf16;
#endif
  return table;
}
